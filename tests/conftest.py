"""For all tests: offline, seeded, one thread a process; nothing here imports torch."""

import gc
import os

# Read when torch and tokenizers are imported, so they stand before any test's imports; subprocesses inherit them.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_VERBOSITY="error",
)

from hypothesis import HealthCheck, settings

# The same examples on every machine; no deadline, since another process may hold the processor.
settings.register_profile(
    "project",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("project")


def pytest_collection_modifyitems(items):
    """One worker trains the organisms, for the first of the workflow tests; the other does unit tests meanwhile."""
    workflow = [item for item in items if item.path.parent.name == "workflow"]
    if "PYTEST_XDIST_WORKER" in os.environ and workflow:
        items.sort(key=lambda item: (item.path != workflow[0].path, item in workflow))


def pytest_collection_finish():
    """Leave what the imports made out of garbage collection: statsmodels collects at each call, 0.2 s beside torch."""
    gc.collect()
    gc.freeze()
