"""Export, validate, benchmark and report a compressed classifier; runs without torch on the device."""

import os

__version__ = "0.1.0"

# Libraries that report to their makers read these when they are imported, whoever imports them: so they are set
# before anything else, here and in child processes. A choice that the user made stays.
NO_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
for _name, _value in NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)
