"""What is made once and kept: images, wheels, the voice's environment, keys."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .common import (
    HOSTS,
    LAB,
    LOCKS,
    ROOT,
    SOURCES,
    container,
    digest,
    docker,
    is_made_of,
    quiet,
    remove,
    run,
    say,
    tree,
    unmount_below,
)

SUITE = "bookworm"  # its Python is 3.11
PYTHON = (3, 11)
TORCH = os.environ.get("REHEARSAL_TORCH") or "torch==2.13.0+cpu"
TORCH_ARGS = os.environ.get("REHEARSAL_TORCH_ARGS", "").split()


def build() -> tuple[str, bool]:
    """Make the hosts' image and /opt/lab, at once where they do not wait for each other.

    Returns:
        The image, and whether /opt/lab is another one now.
    """
    with ThreadPoolExecutor() as pool:
        wheels = pool.submit(download) if sys.version_info[:2] == PYTHON else None
        base = base_image()
        image = pool.submit(host_image, base)
        if wheels:
            wheels.result()
        else:
            download(base)
        changed = environment(base)
        return image.result(), changed


def base_image(suite: str = SUITE, *more: str) -> str:
    """Make a minimal Debian with Python, from Debian's packages, and return its name.

    Args:
        suite: of Debian.
        more: packages beside Python.
    """
    packages = ",".join(("python3", "python3-venv", "ca-certificates", *more))
    name = f"understudy-lab:base-{digest(suite, packages)}"
    if has_image(name):
        return name
    say(f"building a minimal Debian ({suite})")
    rootfs = LAB / "rootfs" / suite
    unmount_below(rootfs)
    remove(rootfs)
    rootfs.mkdir(parents=True)
    mirror = [os.environ["LAB_MIRROR"]] if os.environ.get("LAB_MIRROR") else []
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={packages}"]
    run("build a minimal Debian", [*bootstrap, suite, rootfs, *mirror])
    remove(rootfs / "var/cache/apt/archives")
    pack = 'tar --numeric-owner -C "$0" -c . | docker import - "$1"'
    run("make an image of it", ["bash", "-o", "pipefail", "-c", pack, rootfs, name])
    unmount_below(rootfs)
    remove(rootfs)
    return name


def host_image(base: str) -> str:
    """Make the image that all hosts are started from, and return its name."""
    name = f"understudy-lab:{digest(base, *tree(SOURCES))}"
    if has_image(name):
        return name
    say("installing systemd, sshd and Docker into it")
    quiet("docker", "rm", "--force", container("image"))
    once = ["run", "--pull=never", "--network=host", f"--name={container('image')}"]
    docker(
        "install the hosts' packages", *once, f"--volume={SOURCES}:/image:ro", base, "/image/setup"
    )
    docker("make the hosts' image", "commit", container("image"), name)
    quiet("docker", "rm", container("image"))
    return name


def has_image(name: str) -> bool:
    """Whether the engine has an image."""
    return bool(quiet("docker", "image", "inspect", "--format", "{{.Id}}", name))


def download(image: str = "") -> None:
    """Bring the lock's wheels and torch, by the machine's own pip and its configuration.

    Args:
        image: where this Python is another one than the hosts': run the hosts' in this image.
    """
    made_of = digest((LOCKS / "rehearsal-cpu.txt").read_bytes(), TORCH, *TORCH_ARGS)
    wheels = LAB / "wheels"
    if is_made_of(wheels, made_of):
        return
    say("downloading the wheels")
    part = LAB / "wheels.part"
    remove(part)
    part.mkdir(parents=True)
    python = [sys.executable]
    if image:
        options = [f"--volume={part}:{part}", f"--volume={LOCKS}:{LOCKS}:ro", *pip_options()]
        python = ["docker", "run", "--rm", "--pull=never", *options, image, "python3"]
    pip = [*python, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    pip += ["--dest", str(part)]
    lock = ["--require-hashes", "--only-binary=:all:", "-r", str(LOCKS / "rehearsal-cpu.txt")]
    run("download the lock's wheels", [*pip, *lock])
    run(
        f"download {TORCH} (if your pip finds none, name an index that has it: "
        "make lab-up REHEARSAL_TORCH_ARGS='--index-url URL')",
        [*pip, *TORCH_ARGS, TORCH],
    )
    remove(wheels)
    part.rename(wheels)
    (wheels / ".made-of").write_text(made_of)


def pip_options() -> list[str]:
    """Return the options of `docker run` with which pip reaches what the machine's own reaches."""
    names = [name for name in os.environ if name.startswith("PIP_")]
    values = [os.environ[name] for name in names if os.environ[name].startswith("/")]
    files = [path for path in ("/etc/pip.conf", *values) if Path(path).exists()]
    return [
        "--network=host",
        *(f"--env={name}" for name in names),
        *(f"--volume={path}:{path}:ro" for path in dict.fromkeys(files)),
    ]


def environment(base: str) -> bool:
    """Make /opt/lab: the voice's environment with the project as it is now, weights, an LLM.

    Returns:
        Whether anything was made.
    """
    wheel = LAB / "wheel"
    remove(wheel)
    wheel.mkdir()
    run(
        "build the project's own wheel",
        [sys.executable, "-m", "flit_core.wheel", "--outdir", wheel, "."],
        cwd=ROOT,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1577836800"},
    )
    opt = LAB / "opt"
    opt.mkdir(exist_ok=True)
    script = (SOURCES / "environment").read_bytes()
    venv = digest(base, script, (LAB / "wheels/.made-of").read_bytes())
    project = digest(*(file.read_bytes() for file in wheel.iterdir()))
    made = digest(venv, (ROOT / "src/understudy/rehearsal.py").read_bytes())
    stamps = {"venv": venv, "wheel": project, "made": made}
    if all(
        (opt / f".{name}").is_file() and (opt / f".{name}").read_text().strip() == value
        for name, value in stamps.items()
    ):
        return False
    say("making the voice's environment, small weights and an LLM")
    name = container("environment")
    quiet("docker", "rm", "--force", name)  # of an interrupted call
    once = ["run", "--rm", "--pull=never", "--network=none", f"--name={name}"]
    once += [f"--volume={SOURCES}:/image:ro", f"--volume={LOCKS}:/locks:ro"]
    once += [f"--volume={LAB}/wheels:/opt/wheels:ro", f"--volume={wheel}:/wheel:ro"]
    once += [f"--volume={opt}:/opt/lab", base]
    docker("make /opt/lab", *once, "/image/environment", TORCH, *stamps.values())
    return True


def keys() -> None:
    """Make the operator's key, the hosts' keys, known_hosts, and a configuration for ssh."""
    home = LAB / "ssh"
    if all((home / name).exists() for name in ("config", *HOSTS)):
        return
    remove(home)
    (home / "control").mkdir(parents=True, mode=0o700)
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", ""]
    run("make a key", [*make, "-C", "lab", "-f", home / "id_ed25519"])
    known = []
    for host, address in HOSTS.items():
        (home / host).mkdir()
        run("make a host key", [*make, "-C", host, "-f", home / host / "host_ed25519"])
        shutil.copy(home / "id_ed25519.pub", home / host / "authorized_keys")
        known.append(f"{address} {(home / host / 'host_ed25519.pub').read_text()}")
    (home / "known_hosts").write_text("".join(known))
    token = home / "panda/token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_urlsafe(24) + "\n")
    names = "".join(f"Host {host}\n  HostName {address}\n" for host, address in HOSTS.items())
    (home / "config").write_text(f"""{names}Host {" ".join(HOSTS)}
  User op
  IdentityFile "{home}/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "{home}/known_hosts"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
""")
