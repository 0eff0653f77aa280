#!/bin/sh
# tests/reports_test.py where there is Python 3; nothing else needs it.
command -v python3 > /dev/null && exec python3 tests/reports_test.py
echo 'ok 1 - reports: tables and plots # SKIP python3 is not installed'
echo '1..1'
