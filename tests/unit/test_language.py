"""Bits per character: metrics by hand, and what the page and the comparison make of them."""

from pathlib import Path

import numpy as np

from cl.metrics import language
from cl.results import Results
from cl.testing.tiny import TinySequences
from cl.tuning import ValidationStream

# Untrained 5 bits; the first text is learned to 2 and rises to 3, then 3.5; the second from 2.5 to 2.25.
HAND = np.array([[[5.0, 5.0, 5.0], [2.0, 4.0, 4.5], [3.0, 2.5, 4.0], [3.5, 2.25, 3.0]]])


def test_metrics_by_hand() -> None:
    np.testing.assert_allclose(language.bits_per_character(HAND), [(3.5 + 2.25 + 3) / 3])
    np.testing.assert_allclose(language.bits_lost(HAND), [[1.5, -0.25, np.nan]])
    np.testing.assert_allclose(language.bits_learned(HAND), [(2 + 2.5 + 3) / 3])


def test_an_unfinished_run_tells_of_the_texts_it_learned() -> None:
    cut = HAND.copy()
    cut[:, 3] = np.nan
    np.testing.assert_allclose(language.bits_per_character(cut), [(3 + 2.5) / 2])
    np.testing.assert_allclose(language.bits_lost(cut), [[1.0, np.nan, np.nan]])


def test_bits_are_nats_over_ln_2_and_survive_the_disk(tmp_path: Path) -> None:
    found = Results(HAND, np.log(2) * HAND, [0], language=True)
    np.testing.assert_allclose(found.bits, HAND)
    found.save(tmp_path)
    np.testing.assert_allclose(Results.load(tmp_path).bits, HAND)
    assert Results(HAND, HAND, [0]).bits.size == 0


def test_tuning_judges_a_text_by_bits_and_lets_no_learner_look_ahead() -> None:
    stream = TinySequences("steps", "domain")
    stream.language = True
    assert ValidationStream(stream).language
    stream.language = False
    assert not ValidationStream(stream).language
