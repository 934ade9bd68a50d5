"""`lethe reproduce` on a small table of its own."""

import json

import numpy as np
import pytest
import yaml

from cl.cli.commands import reproduce

TABLE = {
    "source": "none", "quantity": "average_accuracy", "scale": 100, "seeds": 4, "tolerance": 1,
    "common": ["stream=split_digits", "stream.samples_per_task=30", "stream.test_samples=20", "learner.hidden=[8]",
               "measures=none"],
    "columns": {"domain": ["stream.scenario=domain"]},
    "rows": {"fine-tuning": {"overrides": ["strategy=naive"], "domain": {"mean": 50}}},
}  # fmt: skip


@pytest.fixture
def table(tmp_path, monkeypatch):
    (tmp_path / "reproduce").mkdir()
    (tmp_path / "reproduce" / "small.yaml").write_text("# Small\n" + yaml.safe_dump(TABLE))
    monkeypatch.setattr(reproduce, "conf_folder", lambda: tmp_path)

    def values(*words):
        out = tmp_path / f"{len(words)}"
        assert reproduce.main(["small", "--output", str(out), "--jobs", "1", "--json", f"{out}.json", *words]) == 0
        (cell,) = json.loads((tmp_path / f"{len(words)}.json").read_text())["cells"]
        return cell["values"]

    return values


def test_seeds_trained_together_give_what_they_give_one_by_one(table, capsys):
    alone, together = table(), table("--together")
    assert len(set(alone)) > 1
    np.testing.assert_allclose(together, alone, atol=1e-4)
    told = capsys.readouterr()
    assert "| fine-tuning | domain | 50 |" in told.out
    lines = [line for line in told.err.splitlines() if line.startswith("run ")]  # plain lines without a terminal
    told = [line.split(",")[0] for line in lines]  # those that end within a second of one another share a line
    assert [word for word in told if word not in ("run 1/4", "run 2/4", "run 3/4")] == ["run 4/4", "run 1/1"]
