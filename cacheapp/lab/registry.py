"""All experiments by name, in the order of the article."""

from cacheapp.lab import (
    computing,
    not_shared,
    process_races,
    starting,
    thread_races,
    too_many,
    waiting,
    what_breaks,
)
from cacheapp.lab.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        *(waiting, computing, starting, too_many),
        *(thread_races, process_races, not_shared, what_breaks),
    )
}
