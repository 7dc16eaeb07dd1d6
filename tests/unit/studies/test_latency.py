"""The study of latency on a CPU."""

from s2mlp_bench.baselines.registry import BASELINES
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.latency.part import available_baselines


def test_it_offers_each_baseline_that_runs_on_a_cpu():
    assert set(available_baselines(Listener())) == {
        name for name, baseline in BASELINES.items() if "cpu" in baseline.providers and baseline.missing() is None
    }
    assert "torch-eager" in available_baselines(Listener())
