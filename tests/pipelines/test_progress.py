"""The line that a driver shows of a report."""

from pipelines.stages.train import progress_line

ROW = {
    "step": 200, "discriminator_loss": 1.0625, "value": -1.0625, "real_accuracy": 0.8, "fake_accuracy": 0.75,
    "steps_per_second": 50.0, "images_per_second": 5000.0,
}  # fmt: skip
REST = "D right on real 80%, fake 75%  5,000 images/s  about 16 s left"


def test_the_line_shows_v_where_the_objective_has_one():
    assert progress_line(ROW, 1000) == f"step 200/1000  V(D,G) -1.062  {REST}"


def test_the_line_shows_d_s_loss_where_there_is_no_v():
    """Hinge and least squares losses are no V: the line would otherwise lie about how near D and G are."""
    row = {name: value for name, value in ROW.items() if name != "value"}
    assert progress_line(row, 1000) == f"step 200/1000  D's loss 1.062  {REST}"
