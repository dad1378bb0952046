# Where jobs find Python and the library. No rules.
import os
import sys
from pathlib import Path

ROOT = Path(workflow.current_basedir).parents[1]
# Jobs run with this Python, and with the library of this checkout, whatever is installed or activated.
environment = os.environ
environment.pop("PYTHONDONTWRITEBYTECODE", None)  # imports of each stage would be compiled again, 7 s of them
environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
sys.path[:0] = [str(ROOT / "src")]
