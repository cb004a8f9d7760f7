#!/usr/bin/env bash
# Runs every recipe of configs/text on embedded data at a size that takes a minute or two, and says how long each took.
# (configs/text/glue.yaml, clue.yaml and ner.yaml want data of your own: see the first lines of each.)
source "$(dirname "$0")/environment.sh" ""
out=runs/smoke

recipe() { # NAME COMMAND OPTION...
    local name=$1 started=$SECONDS
    shift
    .venv/bin/ssl-suite "$@" --out "$out/$name" >"$out/$name.log" 2>&1 || { tail -n 20 "$out/$name.log"; exit 1; }
    echo "$name: $((SECONDS - started)) s"
}

mkdir -p "$out"
for name in bert roberta albert spanbert ernie electra elmo gpt shakespeare; do
    recipe "$name" fit -c "configs/text/$name.yaml" -c configs/text/smoke.yaml --overwrite true
done
judge=(--model.encoder "$out/bert/encoder" --overwrite true --test_after true)
recipe classify fit -c configs/text/classify.yaml "${judge[@]}" --data.labels 500
recipe tag fit -c configs/text/tag.yaml "${judge[@]}" --data.labels 200
recipe squad fit -c configs/text/squad.yaml "${judge[@]}" --data.labels 800 --data.max_length 256 --trainer.max_epochs 1
recipe dna fit -c configs/text/dna.yaml "${judge[@]}"
recipe in_context test -c configs/text/in_context.yaml --model.encoder "$out/gpt/encoder"
