"""What a device does at best: operations and bytes are counted right, and seconds are the least of several means."""

import pytest
import torch

from refusal.estimate import Shapes
from refusal.model import gauge

CPU = torch.device("cpu")


def test_rates_count_both_products_and_every_byte(monkeypatch):
    monkeypatch.setattr(gauge, "_MIB", 2**10)
    monkeypatch.setattr(gauge, "best_seconds", lambda function, device: 0.5 if function() is not None else None)
    weights = 64 * 2**10 // (6 * 4 * 4)
    assert gauge.product_rate(4, 6, 10, torch.float32, CPU) == 2 * 10 * 4 * 6 * weights / 0.5
    monkeypatch.setattr(gauge, "best_seconds", lambda function, device: 0.5)
    assert gauge.read_bandwidth(CPU) == 2**30 / 0.5


@pytest.mark.parametrize(("each", "calls"), [(0.001, 2 + 5 * 100), (0.3, 2 + 4), (5.0, 2 + 1)])
def test_the_least_of_a_few_means_and_no_longer_than_a_second_or_two_calls(monkeypatch, each, calls):
    now = [0.0, 0]

    def work():
        now[0] += each * (2 if now[1] == 0 else 1)  # the first call is slower, and not measured
        now[1] += 1

    monkeypatch.setattr(gauge, "clock", lambda device: now[0])
    assert gauge.best_seconds(work, CPU) == pytest.approx(each)
    assert now[1] == calls


def test_wide_and_narrow_are_those_of_a_pass_and_a_step(monkeypatch):
    monkeypatch.setattr(gauge, "product_rate", lambda width, inner, rows, dtype, device: (width, inner, rows, dtype))
    monkeypatch.setattr(gauge, "read_bandwidth", lambda device: 7.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = gauge.gauged(Shapes(2, 10, 40, 100, 1, 1, 1), "bfloat16", 16)
    assert (found.wide, found.narrow) == ((10, 40, 1024, torch.bfloat16), (10, 40, 16, torch.bfloat16))
    assert found.bandwidth == 7.0
    assert found.device == f"cpu ({torch.get_num_threads()} threads, bfloat16)"
