import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data files; a test that needs one skips where there is none."""
    places = [REPOSITORY.parent / "shared/data", REPOSITORY.parents[1] / "shared/data"]
    if os.environ.get("LETHE_DATA"):
        places = [Path(os.environ["LETHE_DATA"])]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip("no folder of data files; set LETHE_DATA to one")
