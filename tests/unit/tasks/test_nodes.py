"""Several machines with one params.yaml: which one this is, and where they meet."""

import itertools

import pytest

from ovis_model.errors import ConfigError
from ovis_model.train_config import TrainConfig
from tasks._launch import environment, torchrun
from tasks._nodes import Node, this_node


def config(**values):
    return TrainConfig(ovis_pretrained_path="base", **values)


def test_a_machine_alone_needs_nothing_and_calls_nobody():
    node = this_node(config(), {"MASTER_ADDR": "elsewhere", "MASTER_PORT": "1"})
    assert node == Node()
    assert node.call_for_others() == ""


def test_machines_are_told_apart_by_node_rank_alone():
    cluster = config(nnodes=3, master_addr="first", master_port=4000, nproc_per_node=8)
    assert this_node(cluster, {}) == Node(0, 3, "first", 4000)
    assert this_node(cluster, {"NODE_RANK": "2"}) == Node(2, 3, "first", 4000)
    assert cluster.num_processes == 24


def test_the_environment_of_a_cluster_fills_in_what_params_leave_out():
    surroundings = {"MASTER_ADDR": "head", "MASTER_PORT": "5000", "NODE_RANK": "1"}
    assert this_node(config(nnodes=2), surroundings) == Node(1, 2, "head", 5000)
    assert this_node(config(nnodes=2, master_port=6), surroundings).port == 6
    assert this_node(config(nnodes=2, master_addr="a"), {}) == Node(0, 2, "a", 29500)


@pytest.mark.parametrize(
    ("values", "surroundings", "message"),
    [
        (
            {},
            {"NODE_RANK": "1"},
            "NODE_RANK is 1, but train.nnodes is 1: number the machines from",
        ),
        ({"nnodes": 2, "master_addr": "a"}, {"NODE_RANK": "2"}, "from 0 to 1, or raise train.nno"),
        ({"nnodes": 2}, {}, "nothing says where the machines meet: set train.master_addr"),
        ({}, {"NODE_RANK": "one"}, "NODE_RANK must be a whole number, not 'one'"),
        ({"nnodes": 2, "master_addr": "a"}, {"MASTER_PORT": "x"}, "MASTER_PORT must be a whole"),
    ],
)
def test_machines_that_cannot_meet_are_refused(values, surroundings, message):
    with pytest.raises(ConfigError, match=message):
        this_node(config(**values), surroundings)


def test_torchrun_is_told_of_the_machines(tmp_path):
    node = Node(1, 2, "first", 4000)
    command = torchrun(tmp_path / "job.json", nproc_per_node=4, node=node)
    options = dict(itertools.pairwise(command))
    told = ("--nnodes", "--node-rank", "--nproc-per-node", "--master-addr", "--master-port")
    assert [options[name] for name in told] == ["2", "1", "4", "first", "4000"]


def test_machines_that_meet_over_a_network_are_not_bound_to_loopback(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert environment(1)["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in environment(1, node=Node(0, 2, "first", 4000))


def test_the_first_machine_says_what_to_run_on_the_others():
    said = Node(0, 3, "first", 4000).call_for_others()
    assert said == (
        "Machines meet at first:4000. On the others run:\n"
        "  NODE_RANK=1 python -m tasks train\n"
        "  NODE_RANK=2 python -m tasks train\n"
    )
    assert Node(1, 3, "first", 4000).call_for_others() == ""
