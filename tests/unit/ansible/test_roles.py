"""Roles, modules and locks keep the promises that design and documentation make for them."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, nodes

from understudy.serve.config import ServerConfig

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
MODULES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))
ACTIONS = sorted(path.stem for path in (ROOT / "action_plugins").glob("*.py"))
LOCKS = [
    path
    for path in sorted((ROOT / "files/locks").glob("*.txt"))
    if not path.stem.endswith(("-overrides", "-excludes"))
]
GROUP_VARS = ROOT / "inventory/group_vars"
PLAYS = sorted(path for path in (ROOT / "playbooks").rglob("*.yml") if path.parent.name != "vars")
WRAPPERS = sorted(path for path in ROOT.glob("*.yml") if not path.name.startswith("."))

#: What the name of a play, block or task may begin with: a log says what is being done. A new
#: verb is added here, once somebody has seen that it is one.
VERBS = """
    Add Arm Ask Attribute Begin Benchmark Bring Build Calibrate Check Claim Clear Close Collect
    Compare Compute Copy Decide End Fail Fetch Find Finish Follow Give Have Hold Inspect Install
    Judge Keep Leave Let Look Make Mark Measure Move Note Open Pack Pause Probe Prove Put Read
    Record Reload Remember Remove Renew Report Request Return Run Select Serve Set Signal Speak
    Stage Start Stop Switch Try Unpack Verify Wait Watch Write
"""

#: What a literal default of each documented type is in Python.
TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "dict": (dict,),
    "float": (int, float),
    "int": (int,),
    "list": (list,),
    "path": (str,),
    "str": (str,),
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def role(name: str) -> Path:
    return ROOT / "roles" / name


def defaults(name: str) -> dict[str, Any]:
    found: dict[str, Any] = load(role(name) / "defaults/main.yml")
    return found


def specs(name: str) -> dict[str, Any]:
    found: dict[str, Any] = load(role(name) / "meta/argument_specs.yml")["argument_specs"]
    return found


def task_files(name: str) -> list[Path]:
    return sorted((role(name) / "tasks").glob("*.yml"))


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    """Every task of a file of tasks or plays, blocks opened."""
    waiting = list(load(path) or [])
    while waiting:
        item = waiting.pop(0)
        inner = [
            item[key] for key in ("tasks", "pre_tasks", "block", "rescue", "always") if key in item
        ]
        waiting = [task for part in inner for task in part] + waiting
        yield item


def is_template(value: Any) -> bool:
    return "{{" in json.dumps(value)


def fits(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))


# --- variables -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROLES)
def test_spec_and_defaults_name_the_same_variables(name: str) -> None:
    found, there = specs(name), defaults(name)
    main = found["main"]["options"]
    assert {variable for variable in main if variable.startswith(f"{name}_")} == set(there)
    for entry in found.values():  # another entry point has the same variables, or fewer
        assert entry["short_description"]
        for variable, option in entry["options"].items():
            assert variable in TYPED or option == main[variable], variable
    assert {f"{entry}.yml" for entry in found} <= {path.name for path in task_files(name)}


@pytest.mark.parametrize("name", ROLES)
def test_every_variable_is_described_and_its_default_has_its_type(name: str) -> None:
    for variable, value in defaults(name).items():
        option = specs(name)["main"]["options"][variable]
        assert option["description"], variable
        assert "default" not in option, f"{variable}: its default stands in defaults/main.yml only"
        if is_template(value) and isinstance(value, str):
            continue
        assert fits(value, option["type"]), variable
        if option["type"] == "list":
            assert all(fits(item, option["elements"]) for item in value), variable
        assert value in option.get("choices", [value]), variable


def declared_names() -> dict[str, dict[str, Any]]:
    """What a person types with ``-e``, or writes into an inventory: no name of a role."""
    found = {}
    options = [entry["options"] for name in ROLES for entry in specs(name).values()]
    for task in tasks(ROOT / "playbooks/rehearsal.yml"):
        options += [task.get("ansible.builtin.validate_argument_spec", {}).get("argument_spec", {})]
    prefixes = tuple(f"{name}_" for name in ROLES)
    for option in options:
        found |= {key: value for key, value in option.items() if not key.startswith(prefixes)}
    return found


TYPED = declared_names()


def strings(value: Any) -> Iterator[tuple[str, bool]]:
    """Every string in a file of YAML, and whether it is a condition, which has no braces."""
    if isinstance(value, str):
        yield value, False
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("when", "that", "failed_when", "changed_when", "until"):
                conditions = item if isinstance(item, list) else [item]
                yield from (
                    (text, "{{" not in text) for text in conditions if isinstance(text, str)
                )
            else:
                yield from strings(item)


def test_every_name_that_is_typed_is_declared_and_in_the_readme() -> None:
    parts = ("tasks", "vars", "defaults")
    files = [path for name in ROLES for part in parts for path in (role(name) / part).glob("*.yml")]
    read: set[str] = set()
    made: set[str] = set()
    for path in [*PLAYS, *files]:
        document = load(path)
        for text, condition in strings(document):
            tree = Environment().parse(f"{{{{ {text} }}}}" if condition else text)
            read |= {node.name for node in tree.find_all(nodes.Name)}
        for task in tasks(path) if isinstance(document, list) else ():
            made |= {*task.get("vars", {}), *task.get("ansible.builtin.set_fact", {})}
            made |= {task["register"]} if "register" in task else set()
            made |= {task.get("loop_control", {}).get("loop_var", "item")}
    known = (*(f"{name}_" for name in ROLES), "__", "ansible_", "understudy_")
    magic = {
        "groups",
        "hostvars",
        "inventory_dir",
        "inventory_hostname",
        "now",
        "omit",
        "range",
        "lookup",
        "query",
        "role_path",
        "playbook_dir",
        "dict",
        "switch_facts",
    }
    inventory = set(load(ROOT / "inventory/rehearsal/group_vars/all.yml"))
    typed = {name for name in read - made - magic - inventory if not name.startswith(known)}
    assert typed == set(TYPED)
    for name, option in TYPED.items():
        assert option["description"], name
        assert option["type"] in TYPES, name
    table = (ROOT / "README.md").read_text("utf-8").partition("| `-e` |")[2].partition("\n\n")[0]
    rows = {row[0]: row for row in re.findall(r"^\| `(\w+)` \|(.*)", table, flags=re.MULTILINE)}
    assert set(rows) == set(TYPED)
    for name, option in TYPED.items():
        for choice in option.get("choices", []):
            assert f"`{choice}`" in rows[name][1], (name, choice)


#: Facts of another role that a role sets all the same: the run is over, and the job to be followed.
HANDED_ON = {("preflight", "run_failed"), ("tts_baseline", "tts_bench_job")}


@pytest.mark.parametrize("name", ROLES)
def test_a_variable_has_the_name_of_its_role(name: str) -> None:
    assert all(variable.startswith(f"{name}_") for variable in defaults(name))
    internal = role(name) / "vars/main.yml"
    if internal.exists():
        assert all(variable.startswith(f"__{name}_") for variable in load(internal))
    for path in task_files(name):
        for task in tasks(path):
            made = [*task.get("ansible.builtin.set_fact", {})]
            made += [task["register"]] if "register" in task else []
            other = str(task.get("ansible.builtin.include_role", {}).get("name", name))
            for variable in [*made, *task.get("vars", {})]:
                given = variable not in made and variable.startswith(f"{other}_")
                own = f"{variable}_".startswith((f"{name}_", f"__{name}_"))
                assert own or given or (name, variable) in HANDED_ON, f"{path}: {variable}"


@pytest.mark.parametrize("name", ROLES)
def test_a_role_leaves_the_internals_of_the_others_alone(name: str) -> None:
    for path in role(name).rglob("*.yml"):
        for variable in re.findall(r"\b__[a-z]\w*", path.read_text(encoding="utf-8")):
            assert f"{variable}_".startswith(f"__{name}_"), f"{path}: {variable}"


def test_every_variable_is_used() -> None:
    files = [
        path
        for name in ROLES
        for part in ("tasks", "vars", "defaults", "templates")
        for path in (role(name) / part).glob("*.*")
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*files, *PLAYS])
    for name in ROLES:
        for variable in defaults(name):
            uses = re.findall(rf"\b{variable}\b(?!:)", text)
            assert uses, f"{variable} is set and never read"


def test_shared_variables_stand_in_the_inventory_once() -> None:
    shared = load(GROUP_VARS / "all.yml")
    assert all(variable.startswith("understudy_") for variable in shared)
    rehearsal = load(ROOT / "inventory/rehearsal/group_vars/all.yml")
    assert shared.keys() <= rehearsal.keys()
    assert shared["understudy_primary"].keys() == rehearsal["understudy_primary"].keys()
    lab = load(ROOT / "inventory/lab/group_vars/all.yml")
    assert shared["understudy_primary"].keys() == lab["understudy_primary"].keys()
    parts = ("tasks", "vars", "defaults", "templates")
    files = [path for name in ROLES for part in parts for path in (role(name) / part).glob("*.*")]
    playbooks = [path for path in (ROOT / "playbooks").rglob("*.*") if path.is_file()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*files, *playbooks])
    assert set(re.findall(r"\bunderstudy_[a-z_]+", text)) == shared.keys()


@pytest.mark.parametrize("path", sorted(GROUP_VARS.glob("*.yml")), ids=lambda path: path.stem)
def test_the_inventory_says_what_the_defaults_say(path: Path) -> None:
    everything = {key: value for name in ROLES for key, value in defaults(name).items()}
    for variable, value in load(path).items():
        assert everything.get(variable, value) == value, variable


def test_the_document_of_the_server_has_its_settings() -> None:
    text = (ROOT / "docs/voice-server.md").read_text("utf-8").partition("## Config")[2]
    first = re.findall(r"^\| (`[^|]*) \|", text.partition("## Under")[0], flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(first))) == set(ServerConfig.model_fields)
    sent = load(role("tts_server") / "vars/main.yml")["__tts_server_config"]
    assert set(sent) <= set(ServerConfig.model_fields)


def test_the_wheel_that_is_brought_is_the_one_that_is_built() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wheel = load(role("chatterbox") / "vars/main.yml")["__chatterbox_wheel_name"]
    assert wheel == f"{project['name']}-{project['version']}-py3-none-any.whl"


# --- what the role says of itself ------------------------------------------------------------


@pytest.mark.parametrize("name", ROLES)
def test_readme_has_every_variable_with_its_default(name: str) -> None:
    text = (role(name) / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, flags=re.MULTILINE))
    variables = {key: cell for key, cell in rows.items() if key.startswith(f"{name}_")}
    assert set(variables) == set(defaults(name))
    for variable, value in defaults(name).items():
        if is_template(value):
            continue
        assert variables[variable] == shown(value), variable


def shown(value: Any) -> str:
    """A default as a README has it: nothing is none, a command is one line."""
    if value == "":
        return "none"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, list) and value and isinstance(value[0], str):
        return f"`{' '.join(value)}`"
    flow = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{flow.partition('...')[0].strip()}`"


@pytest.mark.parametrize("name", ROLES)
def test_readme_names_entry_points_that_are_there(name: str) -> None:
    text = (role(name) / "README.md").read_text(encoding="utf-8")
    there = {path.stem for path in task_files(name)}
    table = text[text.index("| Entry point |") :].split("\n\n", maxsplit=1)[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))
    assert named <= there
    assert set(specs(name)) <= named
    assert {entry for other, entry in included() if other == name} <= named
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (role(name) / link).exists(), link


def included() -> set[tuple[str, str]]:
    """Roles and entry points that plays and roles include."""
    found = set()
    for path in [*PLAYS, *(file for name in ROLES for file in task_files(name))]:
        for task in tasks(path):
            for word in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
                if word in task:
                    found.add((task[word]["name"], task[word].get("tasks_from", "main")))
            found |= {(row["role"], "main") for row in task.get("roles", [])}
    return found


def test_every_included_role_and_entry_point_exists() -> None:
    for name, entry in included():
        assert (role(name) / f"tasks/{entry}.yml").is_file(), f"{name}: {entry}"


@pytest.mark.parametrize("name", ROLES)
def test_metadata(name: str) -> None:
    meta = load(role(name) / "meta/main.yml")
    assert meta["dependencies"] == []
    assert meta["galaxy_info"]["license"] == "MIT"
    assert meta["galaxy_info"]["min_ansible_version"] == "2.19"
    assert meta["galaxy_info"]["description"]


# --- tasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [*PLAYS, *(file for name in ROLES for file in task_files(name))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_task_hides_its_failure(path: Path) -> None:
    for task in tasks(path):
        assert "ignore_errors" not in task, task.get("name")
        assert "ansible.builtin.shell" not in task, task.get("name")


@pytest.mark.parametrize(
    "path",
    [*WRAPPERS, *PLAYS, *(file for name in ROLES for file in task_files(name))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_name_of_a_task_is_an_imperative(path: Path) -> None:
    for task in tasks(path):
        if {"role", "import_playbook"} & set(task) and "name" not in task:
            continue
        name = task["name"]
        assert name.split()[0] in VERBS.split(), name
        assert name[-1] not in "?.!:", name


def test_nothing_ends_a_window_early() -> None:
    for path in [*task_files("llm_window"), ROOT / "playbooks/bench.yml"]:
        for task in tasks(path):
            step = str(task.get("ansible.builtin.meta", task.get("meta", "")))
            assert not step.startswith("end_"), f"{path}: {task}"


# --- modules ---------------------------------------------------------------------------------


class Caught(Exception):
    """Carries what a module declared."""


def loaded(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / f"{path}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def declared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of library/, and what it gives to AnsibleModule, or its action plugin accepts."""
    module = loaded(f"library/{request.param}")
    if not hasattr(module, "main"):
        action = loaded(f"action_plugins/{request.param}")
        checks = action.ActionModule._supports_check_mode
        return module, {"argument_spec": action.ARGUMENTS, "supports_check_mode": checks}

    def catch(**declaration: Any) -> None:
        raise Caught(declaration)

    monkeypatch.setattr(module, "AnsibleModule", catch)
    with pytest.raises(Caught) as caught:
        module.main()
    return module, caught.value.args[0]


@pytest.mark.parametrize("declared", MODULES, indirect=True, ids=MODULES)
def test_module_documents_what_it_takes(declared: Any, request: pytest.FixtureRequest) -> None:
    module, declaration = declared
    name = request.node.callspec.id
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["module"] == name
    assert documentation["short_description"]
    checks = declaration["supports_check_mode"]
    assert checks or name == "listen_blind"
    assert documentation["attributes"]["check_mode"]["support"] == ("full" if checks else "none")
    documented = documentation["options"]
    taken = declaration["argument_spec"]
    assert set(documented) == set(taken)
    for option, said in documented.items():
        assert said["description"], option
        for key, otherwise in (
            ("type", "str"),
            ("required", False),
            ("default", None),
            ("choices", None),
            ("elements", None),
        ):
            assert said.get(key, otherwise) == taken[option].get(key, otherwise), (option, key)


@pytest.mark.parametrize("declared", MODULES, indirect=True, ids=MODULES)
def test_module_examples_and_return_values(declared: Any, request: pytest.FixtureRequest) -> None:
    module, declaration = declared
    name = request.node.callspec.id
    examples = yaml.safe_load(module.EXAMPLES)
    assert examples
    for example in examples:
        assert example["name"]
        given, taken = set(example[name]), declaration["argument_spec"]
        assert given <= set(taken)
        assert {option for option, row in taken.items() if row.get("required")} <= given
    for value, said in yaml.safe_load(module.RETURN).items():
        assert {"description", "returned", "type"} <= set(said), value


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_has_a_module_that_documents_it(name: str) -> None:
    assert name in MODULES
    action, module = (loaded(f"{folder}/{name}") for folder in ("action_plugins", "library"))
    # Its arguments are validated once, by the module or by the action.
    assert hasattr(action, "ARGUMENTS") != hasattr(module, "main")
    assert not hasattr(action, "DOCUMENTATION")


# --- locks -----------------------------------------------------------------------------------


def packages(lock: Path) -> dict[str, list[str]]:
    """The requirements of a lock by name, each with the lines that belong to it."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.startswith(" "):
            found[name].append(line.strip().rstrip("\\").strip())
            continue
        match = re.match(r"([\w.-]+)==(\S+)", line)
        assert match, f"{lock.name}: {line!r} is no pinned package"
        name = line.rstrip("\\").strip()
        found[name] = []
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_is_whole_and_points_nowhere(lock: Path) -> None:
    found = packages(lock)
    assert found
    for package, lines in found.items():
        assert lines, f"{package} has no hash"
        for line in lines:
            assert re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line), f"{package}: {line}"


def test_no_file_of_the_locks_names_an_index() -> None:
    for path in (ROOT / "files/locks").iterdir():
        if path.suffix not in (".txt", ".in") and path.name != "Makefile":
            continue
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, path.name
        assert not re.search(r"^\s*(-i|-f|--(extra-)?index-url|--find-links)\b", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "lock"),
    [
        ("control.in", "control.txt"),
        ("dev.in", "dev.txt"),
        ("chatterbox.in", "chatterbox-aarch64-cuda13.txt"),
        ("chatterbox.in", "rehearsal-cpu.txt"),
        ("rehearsal.in", "rehearsal-cpu.txt"),
    ],
)
def test_a_lock_has_what_was_asked_for(source: str, lock: str) -> None:
    locked = {package.split("==")[0].lower() for package in packages(ROOT / "files/locks" / lock)}
    for line in (ROOT / "files/locks" / source).read_text(encoding="utf-8").splitlines():
        match = re.match(r"[A-Za-z][\w.-]*", line)
        if match:
            assert match[0].lower() in locked, line


def test_locks_that_share_an_environment_agree() -> None:
    control = packages(ROOT / "files/locks/control.txt")
    dev = packages(ROOT / "files/locks/dev.txt")
    names = {package.split("==")[0] for package in control}
    shared = {package.split(" ")[0] for package in dev if package.split("==")[0] in names}
    assert shared <= {package.split(" ")[0] for package in control}
