#!/bin/bash
# 12 tiny cells by 1 and by 2 workers, one thread each, interleaved: A B A B. Usage: ratio.sh PYTHON [SAMPLES], in a checkout.
# Takes about 8 minutes on two free cores. Prints wall and CPU seconds of each run, and the ratio of the walls.
tree=$PWD; python=$1; samples=${2:-4000}; here=$(mktemp -d)
export PYTHONPATH=$tree OMP_NUM_THREADS=1 BENCH_CACHE=$here/cache
bench() { "$python" -c "import sys; sys.argv[0]='bench'; from benchmark.cli.main import main; main()" "$@"; }
cells="--suite demo --methods msd,clip,siglip --seeds 4 --tasks zero_shot --budget samples=$samples"
cd "$here"
bench run --suite demo --methods clip --seeds 1 --tasks zero_shot --budget samples=128 --results warm > /dev/null || exit 1
for round in 1 2; do for workers in 1 2; do
  read -r load _ < /proc/loadavg
  TIMEFORMAT="%R %U %S"
  t=$( { time bench run $cells --workers $workers --results r$round$workers > out.txt 2>&1; } 2>&1 )
  echo "round $round, $workers workers: wall, user, system seconds: $t (load before: $load; cells: $(ls r$round$workers/cells | wc -l))"
  echo "$workers $t" >> walls.txt
done; done
awk '{w[$1]+=$2} END {printf "ratio of walls, 2 workers to 1: %.3f\n", w[2]/w[1]}' walls.txt
rm -rf "$here"
