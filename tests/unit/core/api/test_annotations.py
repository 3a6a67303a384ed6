"""Limits in the annotations of pods: the values that the documents of the other limiters promise."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.annotation_samples import (
    SAMPLE_OF_CALICO,
    SAMPLE_OF_CILIUM,
    SAMPLE_OF_KUBERNETES,
    SAMPLE_OF_TERWAY,
)
from tokenbucket.core.api.annotations import NAME, read_annotations
from tokenbucket.core.api.parse import parse_pod
from tokenbucket.core.api.pod import Annotated
from tokenbucket.core.api.policy import Burst, Direction, ExceedAction, Limit, Rate
from tokenbucket.core.limits.bucket import action_of, as_declared
from tokenbucket.core.planning.active_limit import active_limit

IN, OUT = Direction
CALICO_BURST = Burst(2**29)
KUBERNETES = "kubernetes.io/{}-bandwidth"


def read(**annotations: Any) -> Annotated:
    """Return the limits of annotations. "Calico" stands for the prefix of Calico's annotations."""
    names = {name.replace("_", "-"): value for name, value in annotations.items()}
    prefixed = {f"qos.projectcalico.org/{name}": value for name, value in names.items() if "-" not in name}
    prefixed |= {f"kubernetes.io/{name}": value for name, value in names.items() if "-" in name}
    found = read_annotations("shop", prefixed)
    assert found
    return found


@pytest.mark.parametrize(
    ("sample", "limits"),
    [
        (SAMPLE_OF_KUBERNETES, {IN: Limit(Rate(10**6)), OUT: Limit(Rate(10**6))}),
        (SAMPLE_OF_CILIUM, {IN: Limit(Rate(20 * 10**6)), OUT: Limit(Rate(10**7))}),
        (SAMPLE_OF_CALICO, {OUT: Limit(Rate(10**8), Burst(25 * 10**6))}),
        (SAMPLE_OF_TERWAY, {IN: Limit(Rate(10**7)), OUT: Limit(Rate(10**7))}),
    ],
)
def test_a_documented_sample_yields_the_limits_that_the_document_promises(
    sample: str, limits: dict[Direction, Limit]
) -> None:
    """Delay excess packets, as the other limiters that shape do."""
    pod = parse_pod(yaml.safe_load(sample), annotations=True)
    assert pod.annotated
    assert pod.annotated.policy.limits == limits
    assert pod.annotated.problems == {}
    assert str(pod.annotated.policy) == f"default/{NAME}"
    assert {action_of(limit) for limit in limits.values()} == {ExceedAction.DELAY}


def test_an_annotation_has_the_limit_of_a_policy_with_the_same_rate() -> None:
    """Apply the same defaults."""
    limit = read(ingress_bandwidth="10M").policy.limits[IN]
    active = active_limit(limit, IN, None, read(ingress_bandwidth="10M").policy.mode)
    assert active.text == as_declared(Limit(Rate(10**7)), read(ingress_bandwidth="1M").policy.mode)


def test_annotations_have_no_effect_without_the_option() -> None:
    """Treat a pod with annotations like a pod without."""
    sample = yaml.safe_load(SAMPLE_OF_CILIUM)
    plain = {**sample, "metadata": {"name": "netperf-server"}}
    assert parse_pod(sample) == parse_pod(plain) == parse_pod(plain, annotations=True)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        ("8k", 8_000),
        ("8000", 8_000),
        ("1M", 10**6),
        ("1Mi", 2**20),
        ("16Ki", 2**14),
        ("0.5G", 5 * 10**8),
        ("1e6", 10**6),
        ("1.5Mi", 3 * 2**19),
        ("10000000500m", 10**7 + 1),
        (10_000_000, 10**7),
        ("1T", 10**12),
        ("1P", 10**12),
    ],
)
def test_a_value_is_a_quantity_in_bits_per_second(value: object, bits: int) -> None:
    """Round fractions up, as Kubernetes does. Cap rates at 1T, the highest rate of a bucket."""
    assert read(ingress_bandwidth=value).policy.limits == {IN: Limit(Rate(bits))}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10Mbit", "unknown suffix"),
        ("10m", "must be from 8k to 1P"),
        ("1k", "must be from 8k to 1P"),
        ("1.1P", "must be from 8k to 1P"),
        ("-1M", "must be from 8k to 1P"),
        ("", "quantity"),
        (" 1M", "quantity"),
        ("9" * 50, "40 characters"),
        ("unlimited", "quantity"),
        (None, "quantity"),
    ],
)
def test_an_invalid_value_does_not_affect_other_annotations(value: object, message: str) -> None:
    """Name the annotation in the problem. The other direction keeps its limit."""
    found = read(ingress_bandwidth=value, egress_bandwidth="1M")
    assert found.policy.limits == {OUT: Limit(Rate(10**6))}
    assert found.problems.keys() == {IN}
    assert found.problems[IN].startswith("kubernetes.io/ingress-bandwidth: ")
    assert message in found.problems[IN]


def test_ingress_limits_the_traffic_that_a_pod_receives() -> None:
    """Apply to both families of names."""
    assert read(ingress_bandwidth="1M").policy.limits.keys() == {Direction.INGRESS}
    assert read(egressBandwidth="1M").policy.limits.keys() == {Direction.EGRESS}


def test_calicos_annotations_have_precedence_and_the_defaults_that_calico_documents() -> None:
    """Ignore the annotation of Kubernetes if Calico's is present, even if Calico's is invalid."""
    both = read(ingress_bandwidth="1M", ingressBandwidth="2M", ingressPacketRate="1k")
    assert both.policy.limits == {IN: Limit(Rate(2 * 10**6, 1_000), Burst(2**29, 5))}
    invalid = read(ingress_bandwidth="1M", ingressBandwidth="2Mbit")
    assert invalid.policy.limits == {}
    assert invalid.directions == {IN}
    assert read(ingress_bandwidth="1M", ingressBurst="80M").policy.limits[IN].burst == Burst(10**7)


@pytest.mark.parametrize(
    ("annotations", "limit"),
    [
        ({"ingressBandwidth": "8k"}, Limit(Rate(8_000), Burst(86_400_000))),
        ({"ingressBandwidth": "1P", "ingressBurst": "1k"}, Limit(Rate(10**12), Burst(125))),
        (
            {"ingressPacketRate": "1T", "ingressPacketBurst": "1T"},
            Limit(Rate(None, 10**9), Burst(None, 2**24)),
        ),
    ],
)
def test_a_limit_stays_within_the_bounds_of_a_bucket(annotations: dict[str, str], limit: Limit) -> None:
    """Lower rates and bursts only, so that the limit admits no more than the annotation."""
    assert read(**annotations).policy.limits == {IN: limit}


def test_a_burst_needs_its_rate() -> None:
    """Ignore a burst alone. Other rates stay valid."""
    found = read(ingressPacketRate="100", ingressBurst="1M", egressPacketBurst="10")
    assert found.policy.limits == {IN: Limit(Rate(None, 100), Burst(None, 5))}
    assert found.problems[IN].endswith(
        "ingressBurst: needs kubernetes.io/ingress-bandwidth; set it, or remove the burst"
    )
    assert "needs qos.projectcalico.org/egressPacketRate" in found.problems[OUT]


@pytest.mark.parametrize(
    "name", ["ingressMaxConnections", "egressMaxConnections", "dscp", "ingressPeakrate", "egressMinburst"]
)
def test_annotations_without_an_equivalent_are_ignored(name: str) -> None:
    """Report no problem either, because Calico enforces them."""
    assert read_annotations("shop", {f"qos.projectcalico.org/{name}": "1k"}) is None


@given(
    st.dictionaries(
        st.sampled_from(
            [
                KUBERNETES.format("ingress"),
                *(f"qos.projectcalico.org/ingress{name}" for name in ("Bandwidth", "Burst", "PacketRate")),
                "qos.projectcalico.org/ingressPacketBurst",
            ]
        ),
        st.one_of(
            st.text(max_size=50),
            st.integers(),
            st.none(),
            st.lists(st.text()),
            st.from_regex(r"\d{1,16}[kMGTPKi]{0,2}"),
        ),
    )
)
def test_any_values_yield_a_limit_or_a_problem_for_each_annotated_direction(values: dict[str, Any]) -> None:
    """Return only limits that a bucket can have."""
    found = read_annotations("shop", values)
    assert (found is not None) == bool(values)
    for limit in found.policy.limits.values() if found else ():
        assert active_limit(limit, IN, None, found.policy.mode).config.burst_packets <= 2**24
