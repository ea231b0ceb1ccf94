"""The state of the backups keeps what several commands write."""

from rlcar.storage.backup.state import State


def test_a_verification_that_ends_during_a_backup_stays_recorded(tmp_path):
    path = tmp_path / "backup-state.json"
    backup, verification = State(path), State(path)
    verification.verified()
    verification.write()
    backup.made("/backup", "000001", files=7)
    backup.succeeded()
    backup.write(tmp_path / "rlcar.prom")
    values = State(path).values
    assert values["files"] == 7
    assert values["last_verify_timestamp_seconds"] > 0
    assert (
        "rlcar_backup_last_verify_timestamp_seconds 0.0"
        not in (tmp_path / "rlcar.prom").read_text().splitlines()
    )
