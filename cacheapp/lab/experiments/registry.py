"""All experiments by name, in the order of the article."""

from cacheapp.lab.experiments import (
    computing,
    process_races,
    starting,
    thread_races,
    too_many,
    waiting,
)
from cacheapp.lab.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (waiting, computing, starting, too_many, thread_races, process_races)
}
