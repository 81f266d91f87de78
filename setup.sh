#!/usr/bin/env bash
# Makes the environment in .venv: ./setup.sh for the course, ./setup.sh --tests for its tests too.
# System packages come through apt where this user may install them; what had to be skipped is said.
set -euo pipefail
cd "$(dirname "$0")"

find_python() {
  for python in "${PYTHON:-}" python3.12 python3.11 python3.13 python3; do
    if [ -n "$python" ] && command -v "$python" >/dev/null &&
      "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "Python 3.11 or newer is needed. Install it, or say where it is: PYTHON=/path/to/python make lab" >&2
  exit 1
}

install_course() {
  local python
  python=$(find_python)
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
  .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable .
  touch .venv/ready
}

install_tests() {
  .venv/bin/python -m pip install --quiet --constraint constraints.txt --group test --group habits
  .venv/bin/python -m pip install --quiet --constraint constraints.txt --no-deps --group peers
  install_system_packages bubblewrap:bwrap chromium:chromium postgresql:psql
  touch .venv/ready-for-tests
}

# Arguments are package:program; a package is installed when its program is missing.
install_system_packages() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local sudo=
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  if command -v apt-get >/dev/null && $sudo true 2>/dev/null; then
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "Skipped the system packages ${missing[*]}: this user may not install through apt." >&2
    echo "The tests that need them will be skipped, and will say so." >&2
  fi
}

if [ "${1:-}" = --tests ]; then
  [ -f .venv/ready ] || install_course
  install_tests
else
  install_course
fi
