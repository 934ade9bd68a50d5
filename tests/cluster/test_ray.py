"""A sweep on a real Ray cluster of two local nodes, one of which is lost."""

import json
import os

import pytest

from tests.cluster.conftest import REPOSITORY, sweep, wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray", reason="needs lethe[ray]")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    made.shutdown()


def test_sweep_survives_the_loss_of_a_node(cluster, tmp_path):
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    words = [
        "hydra/launcher=ray_cluster",
        f"hydra.launcher.ray.init.address={cluster.address}",
        "stream=split_digits",
        "training.epochs=60",
        "training.batch_size=16",
        "learner.hidden=[64,64]",
        "checkpoint.steps=100",
        "seed=0,1,2,3",
    ]
    process = sweep(tmp_path, dict(os.environ), *words)

    def training():
        paths = list(tmp_path.glob("runs/*/*/progress.jsonl"))
        return len(paths) >= 2 and all(p.read_text().count('"progress"') > 5 for p in paths)

    wait(training, 300, "two jobs to train")
    cluster.remove_node(second, allow_graceful=False)
    cluster.add_node(**NODE)
    assert process.wait(timeout=600) == 0, (tmp_path / "sweep.log").read_text()
    states = [json.loads(p.read_text())["status"] for p in tmp_path.glob("runs/*/*/status.json")]
    assert states == ["complete"] * 4
    starts = [p.read_text().count('"event": "start"') for p in tmp_path.glob("runs/*/*/progress.jsonl")]
    assert max(starts) >= 2
    assert len(starts) == 4
