"""Each alert fires on what it is for, and none on an installation that is well."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_kit import DEPLOY, rules

#: What makes an alert fire: series, each with its values five minutes apart, as promtool has them.
TROUBLE: dict[str, dict[str, str]] = {
    "MalearnServiceDown": {'malearn_service_up{service="Redis"}': "0x40"},
    "MalearnRestartLoop": {'malearn_service_restarts_total{service="Redis"}': "0+1x40"},
    "MalearnAbsent": {'up{job="malearn"}': "0x40"},
    "MalearnSourceAway": {'malearn_source_up{source="MLflow"}': "0x40"},
    "MalearnIngestLag": {"malearn_ingest_lag_seconds": "3600x40"},
    "MalearnStreamNearlyFull": {
        "malearn_stream_entries": "90x40",
        "malearn_stream_limit": "100x40",
    },
    "MalearnEntriesLost": {"malearn_lost_entries_total": "0x30 7x10"},
    "MalearnMostRecordsKeptOut": {
        'malearn_ingested_records_total{tool_type="a",outcome="accepted"}': "0x30 5x10",
        'malearn_ingested_records_total{tool_type="a",outcome="quarantined"}': "0x30 50x10",
    },
    "MalearnFlowFails": {'malearn_flow_runs_total{flow="ingest",state="failed"}': "0x30 1x10"},
    "MalearnNothingIngested": {"malearn_ingest_timestamp_seconds": "0x40"},
    "MalearnMonitorSilent": {'malearn_monitor_timestamp_seconds{tool_type="a"}': "0x40"},
    "MalearnModelWorseThanMedian": {
        'malearn_live_mae_seconds{tool_type="a",predictor="production"}': "10x40",
        'malearn_live_mae_seconds{tool_type="a",predictor="function_median"}': "5x40",
    },
    "MalearnModelOld": {'malearn_production_age_seconds{tool_type="a"}': "3000000x40"},
    "MalearnDiskNearlyFull": {"malearn_disk_free_bytes": "1000000000x40"},
    "MalearnPredictorWithoutModel": {
        'malearn_predictions_total{instance="i",source="heuristic"}': "0+10x40",
        'malearn_predictions_total{instance="i",source="model"}': "0+1x40",
    },
    "MalearnPredictorDrops": {'malearn_dropped_total{instance="i"}': "0x34 3x6"},
    "MalearnPredictorRedisDown": {'malearn_redis_up{instance="i"}': "0x40"},
    "MalearnPredictorSlow": {
        'malearn_call_seconds_bucket{instance="i",le="0.05"}': "0x40",
        'malearn_call_seconds_bucket{instance="i",le="0.1"}': "0+10x40",
        'malearn_call_seconds_bucket{instance="i",le="+Inf"}': "0+10x40",
    },
}
#: The same where all is well: no service restarts, no count grows but those of good outcomes.
CALM = {
    'up{job="malearn"}': "1x40",
    'malearn_service_up{service="Redis"}': "1x40",
    'malearn_service_restarts_total{service="Redis"}': "2x40",
    'malearn_source_up{source="MLflow"}': "1x40",
    "malearn_ingest_lag_seconds": "200x40",
    "malearn_stream_entries": "10x40",
    "malearn_stream_limit": "100x40",
    "malearn_lost_entries_total": "7x40",
    'malearn_ingested_records_total{tool_type="a",outcome="accepted"}': "0+50x40",
    'malearn_ingested_records_total{tool_type="a",outcome="quarantined"}': "0+5x40",
    'malearn_flow_runs_total{flow="ingest",state="failed"}': "1x40",
    "malearn_ingest_timestamp_seconds": "0+300x40",
    'malearn_monitor_timestamp_seconds{tool_type="a"}': "0+300x40",
    'malearn_live_mae_seconds{tool_type="a",predictor="production"}': "5x40",
    'malearn_live_mae_seconds{tool_type="a",predictor="function_median"}': "6x40",
    'malearn_production_age_seconds{tool_type="a"}': "3000x40",
    "malearn_disk_free_bytes": "9000000000x40",
    'malearn_predictions_total{instance="i",source="heuristic"}': "0+1x40",
    'malearn_predictions_total{instance="i",source="model"}': "0+10x40",
    'malearn_dropped_total{instance="i"}': "3x40",
    'malearn_redis_up{instance="i"}': "1x40",
    'malearn_redis_refusing{instance="i"}': "0x40",
    'malearn_call_seconds_bucket{instance="i",le="0.05"}': "0+10x40",
    'malearn_call_seconds_bucket{instance="i",le="+Inf"}': "0+10x40",
}


def test_every_alert_has_its_trouble() -> None:
    assert [rule["alert"] for rule in rules()] == list(TROUBLE)


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool here")
def test_each_alert_fires_on_its_trouble_and_none_on_a_calm_day(tmp_path: Path) -> None:
    tests = [
        _test(series, f'count(ALERTS{{alertname="{name}",alertstate="firing"}})', [1])
        for name, series in TROUBLE.items()
    ]
    tests.append(_test(CALM, "count(ALERTS)", []))
    file = tmp_path / "tests.json"  # which is YAML, too
    content = {"rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")], "tests": tests}
    file.write_text(json.dumps(content | {"evaluation_interval": "5m"}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _test(series: dict[str, str], query: str, values: list[int]) -> dict[str, Any]:
    samples = [{"labels": "{}", "value": value} for value in values]
    return {
        "interval": "5m",
        "input_series": [{"series": name, "values": text} for name, text in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "175m", "exp_samples": samples}],
    }
