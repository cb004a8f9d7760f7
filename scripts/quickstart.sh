#!/usr/bin/env bash
# Pretrains five methods in three modalities, judges them, and writes a report: 7 to 10 minutes on 2 CPU cores.
source "$(dirname "$0")/environment.sh" ""
.venv/bin/ssl-suite bench -c configs/bench/quickstart.yaml --out runs/quickstart "$@"
echo "Open runs/quickstart/report.html in a browser; rows: .venv/bin/ssl-suite results runs/quickstart"
