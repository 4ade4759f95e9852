#!/bin/sh
# Train both demo models side by side: sh training/run_both.sh RUN SECONDS [options of both trainers]
# Uses every GPU: with several, the last one learns to hear and the others learn to see; with one, they share it
# for six tenths of the time, then it learns to see alone.
# SPEECH_OPTIONS holds more options for the one that learns to hear.
# Needs src on PYTHONPATH and espeak-ng on the PATH; FONTS may name the folder that training.make_fonts wrote.
set -u
run=$1 seconds=$2
shift 2
mkdir -p "$run"
cores=$(getconf _NPROCESSORS_ONLN)
gpus=$(nvidia-smi -L | wc -l)
seeing=$((gpus > 1 ? gpus - 1 : 1))
hearing_seconds=$((gpus > 1 ? seconds : seconds * 6 / 10))
CUDA_VISIBLE_DEVICES=$((gpus - 1)) python3 -m training.train_speech --out "$run" --seconds "$hearing_seconds" \
    --steps 1000000 --workers $((cores / 4)) "$@" ${SPEECH_OPTIONS-} >"$run/speech.log" 2>&1 &
speech=$!
python3 -m torch.distributed.run --standalone --nproc-per-node $seeing -m training.train_vision --out "$run" \
    --seconds "$seconds" --steps 1000000 --compile --workers $((cores / 2 / seeing)) \
    ${FONTS:+--fonts "$FONTS"} "$@" >"$run/vision.log" 2>&1
status=$?
wait $speech && exit $status
