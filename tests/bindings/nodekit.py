# SPDX-License-Identifier: MIT
"""Node for tests: npm's packages, installed once into the build directory, where ours finds them too."""

import fcntl
import os
import shutil
import subprocess

from eqdtest import BUILD, Skip

# What the package and its types depend on, and the generic client that is tested unmodified.
PACKAGES = ("@msgpack/msgpack@3.1.3", "@types/node@18.11.18", "neovim@5.5.0")
INSTALL_SECONDS = 120


def find():
    program, npm = shutil.which("node"), shutil.which("npm")
    if not program or not npm:
        raise Skip("node and npm are not both there")
    version = subprocess.run([program, "-p", "process.versions.node"], capture_output=True, text=True, check=True).stdout
    if int(version.split(".")[0]) < 18:
        raise Skip(f"node {version.strip()} is older than 18")
    with open(BUILD / "npm.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install(npm)
    return program


def install(npm):
    stamp, wanted = BUILD / "node_modules/.eqd-packages", " ".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    env = {**os.environ, "npm_config_update_notifier": "false", "npm_config_fetch_retries": "1"}
    try:
        result = subprocess.run([npm, "install", "--prefix", BUILD, "--no-save", "--no-package-lock", "--no-audit", "--no-fund",
                                 *PACKAGES], capture_output=True, text=True, timeout=INSTALL_SECONDS, env=env, check=False)
    except subprocess.TimeoutExpired:
        raise Skip(f"npm did not install {wanted} within {INSTALL_SECONDS} s") from None
    if result.returncode:
        raise Skip(f"npm cannot install {wanted}: {' '.join(result.stderr.split())[:200]}")
    stamp.write_text(wanted)


# Before the clock of any test runs: the network may be slow, and two of these wait for each other.
try:
    FOUND = find()
except Skip as e:
    FOUND = e


def node():
    """The program, with all packages in place; Skip says what is missing."""
    if isinstance(FOUND, Skip):
        raise FOUND
    return FOUND
