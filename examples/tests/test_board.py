"""A node as a test sees it: commanded, given work, robbed of its power. The same test runs on any kind of satellite:

pytest -p hil.pytest_plugin examples/tests --flatrack-kind process
"""


def test_a_command_is_carried_out_and_told(board):
    board.wait_for_beacon()
    assert board.command("NODE.NOOP").is_completed
    assert board.mode == "NOMINAL"


def test_a_job_comes_back(board, cluster):
    job = cluster.submit(deadline_s=600).wait(within_s=600)
    assert job.row["state"] == "COMPLETED"
    assert len(job.result()) > 0


def test_a_power_cut_is_survived_and_its_cause_is_told(board, cluster):
    board.wait_for_beacon()
    board.cut_power(off_s=10)
    board.wait_for_beacon(boot_count=2, within_s=600)
    assert board.wait_for_event("NODE.RESET")
    assert board.reset_cause == "POWER_CYCLE"
    assert board.command("NODE.NOOP").is_completed
