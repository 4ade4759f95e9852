"""A breaker opens on failures in a row, lets one probe pass, and closes on its success."""

from autoglm_serve.route.breaker import CLOSED, FAILURES, FIRST_OPEN_S, LONGEST_OPEN_S, PROBE_S, Breaker


def opened(now_s: float = 0.0) -> Breaker:
    breaker = CLOSED
    for _ in range(FAILURES):
        breaker = breaker.failed(now_s)
    return breaker


def test_failures_apart_do_not_open_it() -> None:
    breaker = CLOSED
    for _ in range(10 * FAILURES):
        breaker = breaker.failed(0.0).succeeded()
    assert breaker.allows(0.0)


def test_failures_in_a_row_open_it() -> None:
    assert not opened(5.0).allows(5.0)


def test_after_a_while_one_probe_passes_and_no_other() -> None:
    breaker = opened()
    assert not breaker.allows(FIRST_OPEN_S / 2)
    assert breaker.allows(FIRST_OPEN_S)
    probing = breaker.probing(FIRST_OPEN_S)
    assert not probing.allows(FIRST_OPEN_S + PROBE_S / 2)
    assert probing.allows(FIRST_OPEN_S + PROBE_S)  # the probe never came back


def test_a_probe_that_succeeds_closes_it() -> None:
    assert opened().probing(1.0).succeeded() == CLOSED


def test_a_probe_that_fails_opens_it_for_longer_up_to_a_bound() -> None:
    breaker, waits = opened(), []
    for _ in range(2000):  # a replica that fails for days
        waits.append(breaker.probe_at_s)
        breaker = breaker.failed(0.0)
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_OPEN_S


def test_a_closed_breaker_takes_no_notice_of_requests() -> None:
    assert CLOSED.probing(3.0) is CLOSED
