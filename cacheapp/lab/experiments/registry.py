"""All experiments by name, in the order of the article."""

from cacheapp.lab.experiments import waiting
from cacheapp.lab.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT for module in (waiting,)
}
