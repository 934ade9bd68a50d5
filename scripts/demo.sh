#!/usr/bin/env bash
# The main job on real data that needs no download: scikit-learn's handwritten digits as 5 tasks of 2 classes, six
# strategies, three seeds. Ends with a table, a report page and the picture of the forgetting curves.
#   OUTPUT  folder of the runs (default: runs); further words are given to `lethe train`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh

lethe=${VENV:-.venv}/bin/lethe
output=${OUTPUT:-runs}
"$lethe" train -m experiment=demo strategy=naive,joint,ewc,lwf,er,progressive seed=0,1,2 \
    group=demo output="$output" resume=auto "$@" >/dev/null
echo
"$lethe" compare "$output/demo" --metric average_accuracy,forgetting,learning_accuracy
echo
"$lethe" report "$output/demo"
echo "forgetting curves: $output/demo/figures/forgetting_curves.png"
