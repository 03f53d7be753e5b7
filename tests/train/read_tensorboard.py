"""Prints what TensorBoard reads in a folder of event files: a scalar a line as JSON."""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1])
events.Reload()
for name in sorted(events.Tags()["scalars"]):
    points = events.Scalars(name)
    print(json.dumps(dict(name=name, steps=[p.step for p in points], values=[p.value for p in points],
                          times=[p.wall_time for p in points])))
