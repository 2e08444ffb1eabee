"""TensorBoard files of one run."""

from support.event_files import scalars_in, values_in

from tiekd.store.event_log import EventLog


def test_a_log_is_written_anew_and_leaves_out_what_is_no_number(tmp_path):
    for epoch in (1, 2):
        log = EventLog(tmp_path / "log")
        log.write_epoch(epoch, {"epoch": epoch, "step": 10, "loss": 0.5, "lr": float("nan"), "abs_rel": None, "rmse": 2.0})
        log.close()
    assert scalars_in(tmp_path / "log") == [("training/loss", 2, 0.5), ("evaluation/rmse", 2, 2.0)]


def test_settings_of_any_type_are_hyperparameters(tmp_path):
    log = EventLog(tmp_path / "log")
    log.write_outcome({"optim.lr": 0.1, "loss.name": "si", "augment.gamma": [0.9, 1.1], "teacher": None}, {"rmse": None}, None)
    log.close()
    start = next(v for v, _ in values_in(tmp_path / "log") if v.tag == "_hparams_/session_start_info")
    assert all(name in start.metadata.plugin_data.content for name in (b"optim.lr", b"[0.9, 1.1]", b"None"))
