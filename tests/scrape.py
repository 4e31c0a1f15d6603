"""What a Prometheus would read: the exposition of this process, or the text of another."""

from prometheus_client.parser import text_string_to_metric_families

from server.telemetry import metrics


def value(name: str, text: str | None = None, **labels: str) -> float:
    """One sample; 0 as long as nothing was counted under these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text or metrics.exposition().decode())
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) <= 1, "a sample twice"
    return found[0] if found else 0


class Rise:
    """By how much one sample has risen since the `Rise` was made."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name = name
        self._labels = labels
        self._before = value(name, **labels)

    def __call__(self) -> float:
        return value(self._name, **self._labels) - self._before
