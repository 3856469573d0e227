"""The lab: the hosts as containers with systemd, sshd and, on titan, Docker."""
