"""The environment variables of the processes that drive."""

from cluster.training.simulator import simulator_environment


def test_simulators_keep_the_compiler_options_of_the_user_and_use_one_thread(monkeypatch):
    one_thread = "--xla_cpu_multi_thread_eigen=false"
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=dumps --xla_cpu_multi_thread_eigen=true")
    options = simulator_environment()["XLA_FLAGS"].split()
    assert options[0] == "--xla_dump_to=dumps"
    assert options[-1] == one_thread  # XLA takes the last of two
    monkeypatch.delenv("XLA_FLAGS")
    assert simulator_environment()["XLA_FLAGS"] == one_thread
