"""The daemon and a broker that has limits, rules and other clients: what it says stays true and nothing stored is lost."""

from __future__ import annotations

import getpass

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.demo.broker import Broker


@pytest.fixture
def own_broker(make_daemon, tmp_path):
    """own_broker(settings) -> a daemon (not started) and the broker that is its alone."""
    brokers = []

    def make(settings: str = "", **config):
        # Started as root it would become a user who cannot read our files.
        broker = Broker("mosquitto", tmp_path, settings=f"user {getpass.getuser()}\n{settings}")
        broker.__enter__()
        brokers.append(broker)
        daemon = make_daemon(start=False, **config)
        daemon.settings["mqtt"]["port"] = broker.port
        daemon.write()
        daemon.client.__exit__()
        daemon.connect(broker.port)
        return daemon, broker

    yield make
    for broker in brokers:
        broker.__exit__()


def states(daemon, name: str) -> list[str]:
    """Everything said of a job in order, results last where they came last."""
    return [v["state"] for topic, v in daemon.seen if topic in (f"jobs/{name}/event", f"jobs/{name}/result")]


def test_a_broker_that_takes_one_message_at_a_time_gets_them_all(own_broker):
    daemon, _ = own_broker("max_inflight_messages 1")
    daemon.start()
    for n in range(40):
        daemon.submit("toy", {"id": f"j{n}", "params": {}})
    assert {daemon.result(f"j{n}")["state"] for n in range(40)} == {"done"}
    log = daemon.logged()
    assert "lost" not in log, log


def test_what_happened_while_the_broker_was_away_is_told_in_order_afterwards(own_broker, tmp_path):
    daemon, broker = own_broker()
    daemon.start()
    # Long enough that this client, too, is back before it ends: what it is not subscribed to it does not get.
    daemon.submit("toy", {"id": "j", "params": {"count": 300}})
    daemon.wait_for("jobs/j/event", lambda v: v["state"] == "running")
    broker.kill()
    again = Broker("mosquitto", tmp_path, broker.port)
    again.__enter__()
    try:
        assert daemon.result("j")["state"] == "done"
        daemon.look(1.0)
        assert states(daemon, "j")[-1] == "done"
    finally:
        again.__exit__()


def test_a_result_that_the_broker_refuses_holds_up_nothing_and_is_counted(own_broker, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\ntopic deny +/+/jobs/secret/result\n")
    daemon, _ = own_broker(f"acl_file {acl}")
    daemon.start()
    daemon.submit("toy", {"id": "secret", "params": {}})
    daemon.submit("toy", {"id": "open", "params": {}})
    assert daemon.result("open")["state"] == "done"
    daemon.wait_for(
        "telemetry", lambda v: v["outbox"]["undeliverable"] == {"refused": 1} and v["outbox"]["waiting"]["result"] == 0
    )


def test_a_subscription_that_the_broker_refuses_is_a_problem_in_the_status(own_broker, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\ntopic deny +/+/jobs/+/cancel\n")
    daemon, _ = own_broker(f"acl_file {acl}")
    daemon.start()
    status = daemon.wait_for("status", lambda v: v["state"] == "online")
    if not status["problems"]:
        pytest.skip("this mosquitto grants subscriptions that its ACL denies, and filters later")
    assert "jobs/+/cancel" in status["problems"][0]["message"]


def test_a_will_that_comes_late_is_put_right(daemon):
    """A broker publishes the will of a connection that it lost long after we are back."""
    daemon.client.publish(f"{daemon.base}/status", {"state": "offline"}, retain=True)
    daemon.wait_for("status", lambda v: v == {"state": "offline"})
    daemon.seen = [(topic, v) for topic, v in daemon.seen if v != daemon.all("status")[0]]
    daemon.wait_for("status", lambda v: v["state"] == "online")


def what_a_namesake_makes_of_it(make_daemon, first_id: str, second_id: str) -> dict:
    """The first problem that a daemon names when another one of its name starts; each has the client id given."""
    first = make_daemon(mqtt={"client_id": first_id})
    second = make_daemon(start=False, gateway={"id": first.id}, mqtt={"client_id": second_id})
    second.base = first.base
    second.client.__exit__()
    second.connect(first.settings["mqtt"]["port"])
    second.start()
    return first.wait_for("status", lambda v: v.get("problems"))["problems"][0]


def test_two_gateways_of_one_name_are_told_so(make_daemon):
    """A cloned SD card: each has its own client id, so both stay connected, and say what is wrong."""
    assert "another denoised says that it is" in what_a_namesake_makes_of_it(make_daemon, "first", "second")["message"]


def test_a_daemon_that_takes_our_connection_away_is_named(make_daemon):
    """Two of one client id: each new connection ends the other one, at the broker's hand and often without a word."""
    told = what_a_namesake_makes_of_it(make_daemon, "the-same", "the-same")
    assert (told["about"], "its own gateway.id" in told["message"]) == ("mqtt", True)


def test_each_machine_has_a_client_id_of_its_own():
    config = typed.read({"gateway": {"id": "raspberrypi"}}, Config)
    assert config.client_id.startswith("raspberrypi-jobs-")
    assert len(config.client_id) == len("raspberrypi-jobs-") + 8
    assert typed.read({"mqtt": {"client_id": "mine"}}, Config).client_id == "mine"


def test_a_job_whose_caller_is_gone_is_cancelled_where_the_config_says_so(make_daemon):
    daemon = make_daemon(queue={"caller_patience": 0.5})
    daemon.submit("toy", {"id": "gone", "params": {"count": 2000}}, response_topic=f"nobody-{daemon.id}/answers")
    daemon.submit("toy", {"id": "here", "params": {"count": 60}}, response_topic=f"plant-{daemon.id}/answers")
    result = daemon.result("gone")
    assert (result["state"], result["reason"]) == ("cancelled", "nobody has read its Response Topic for 0.5 s")
    assert daemon.result("here")["state"] == "done"


def test_an_overloaded_gateway_says_when_to_come_back(make_daemon):
    daemon = make_daemon(queue={"max_jobs": 1})
    daemon.submit("toy", {"id": "a", "params": {"count": 10_000}})
    daemon.submit("toy", {"id": "b", "params": {}})
    error = daemon.result("b")["error"]
    assert error["code"] == "overloaded"
    assert error["retry_after_ms"] > 0
