"""Whether a task that is handed out again is run again (RXON.md, Behaviour 12)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from avtomatika_worker.policy.known_work import CLOCK_MARGIN, Known, Stage, Verdict, judge

TIMES = st.floats(0, 4e9)
MADE = st.none() | TIMES
KNOWN = st.builds(Known, st.sampled_from(Stage), final=st.booleans(), answered_at=TIMES)


@pytest.mark.parametrize(
    ("stage", "final", "verdict"),
    [
        (Stage.RUNNING, True, Verdict.ADOPT),
        (Stage.STOPPING, True, Verdict.RUN),
        (Stage.ENDED, True, Verdict.DELIVER),
        (Stage.ENDED, False, Verdict.RUN),
        (Stage.STALE, True, Verdict.DELIVER),
        (Stage.STALE, False, Verdict.RUN),
    ],
)
@given(made=TIMES)
def test_with_steps_the_stage_decides(stage, final, verdict, made):
    assert judge(Known(stage, final=final), made=made, has_step=True) is verdict


@given(MADE, st.booleans())
def test_unknown_work_is_run(made, has_step):
    assert judge(None, made=made, has_step=has_step) is Verdict.RUN


@given(KNOWN, MADE, st.booleans())
def test_only_what_runs_is_adopted_and_only_what_is_final_answers(known, made, has_step):
    verdict = judge(known, made=made, has_step=has_step)
    assert (verdict is Verdict.ADOPT) is (known.stage is Stage.RUNNING)
    if verdict is Verdict.DELIVER:
        assert known.final
        assert known.stage in {Stage.ENDED, Stage.STALE}


@given(TIMES, TIMES)
@example(made=100.0 + CLOCK_MARGIN, answered_at=100.0)
def test_without_steps_a_hand_out_from_after_the_stale_answer_is_other_work(made, answered_at):
    verdict = judge(Known(Stage.STALE, answered_at=answered_at), made=made, has_step=False)
    assert (verdict is Verdict.RUN) is (made > answered_at + CLOCK_MARGIN)
