"""Checks dashboards and rules against each other and against the metrics that the code has.

    monitoring.py PROMTOOL      PROMTOOL is the program that parses expressions

Every expression parses, every metric is one of the code's with labels that it has, every alert has a runbook section and
a unit test.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "ops/monitoring"
# Labels that Prometheus adds by itself.
SCRAPE_LABELS = {"job", "instance", "le"}
# What Grafana puts in the place of its variables; some value of the right shape.
VARIABLES = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h", "$job": ".*"}

problems = []


def wrong(where, text):
    problems.append(f"{where}: {text}")


def code_metrics():
    """The metrics of the code with their labels: the generated table, and what every process shows."""
    metrics = {"up": set()}
    table = (ROOT / "Sources/Telemetry/Telemetry.docc/Telemetry.md").read_text()
    for name, kind, labels in re.findall(r"^\| `(postrider_\w+)` \| (\w+) \| (.*?) \|", table, re.M):
        own = set(re.findall(r"`(\w+)`", labels))
        names = [name] if kind != "histogram" else [f"{name}_{suffix}" for suffix in ["bucket", "sum", "count"]]
        for one in names:
            metrics[one] = own
    process = (ROOT / "Sources/Telemetry/ProcessCollector.swift").read_text()
    for name in re.findall(r'"(process_\w+)"', process):
        metrics[name] = set()
    if len(metrics) < 20:
        wrong("Telemetry.md", "the table of metrics was not found")
    return metrics


def rules():
    """All rules by file: (name, expression, rule)."""
    for file in sorted((MONITORING / "rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                yield file.name, rule.get("record") or rule["alert"], rule["expr"], rule


def dashboards():
    """All expressions of dashboards: (where, expression)."""
    for file in sorted((MONITORING / "grafana").glob("*.json")):
        board = json.loads(file.read_text())
        seen = set()
        variables = {variable["name"] for variable in board["templating"]["list"]}
        for panel in board["panels"]:
            where = f"{file.name}: {panel['title']}"
            if panel["id"] in seen:
                wrong(where, f"the id {panel['id']} is there twice")
            seen.add(panel["id"])
            if panel["type"] == "row":
                continue
            if not panel.get("description"):
                wrong(where, "has no description")
            for target in panel["targets"]:
                if target.get("datasource", {}).get("uid") != "${datasource}":
                    wrong(where, "its data source must be the variable")
                yield where, target["expr"]
        for annotation in board["annotations"]["list"]:
            yield f"{file.name}: annotation {annotation['name']}", annotation["expr"]
        used = set(re.findall(r"\$\{?([A-Za-z]\w*)", json.dumps(board)))
        for name in used - variables:
            wrong(file.name, f"there is no variable {name}")


def substitute(where, expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    if "$" in expression:
        wrong(where, f"a variable without a stand-in: {expression}")
    return expression


def names_exist(where, expression, metrics, recorded):
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    for name in set(re.findall(r"\b(?:postrider|process)[_:][\w:]+", text)):
        if name not in metrics and name not in recorded:
            wrong(where, f"there is no metric {name}")
    known = SCRAPE_LABELS.union(*metrics.values())
    for list_ in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text):
        for label in filter(None, (word.strip() for word in list_.split(","))):
            if label not in known:
                wrong(where, f"no metric has the label {label}")
    for name, selector in re.findall(r"([\w:]+)\{([^}]*)\}", text):
        for label in re.findall(r"(\w+)\s*[=!]", selector):
            allowed = SCRAPE_LABELS | metrics.get(name, known)
            if label not in allowed:
                wrong(where, f"{name} has no label {label}")


def parse(promtool, expressions):
    """Has promtool parse everything, as rules of a file that is thrown away."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        group = [{"record": f"check:{index}", "expr": expression} for index, (_, expression) in enumerate(expressions)]
        yaml.safe_dump({"groups": [{"name": "check", "rules": group}]}, file)
        file.flush()
        run = subprocess.run([promtool, "check", "rules", file.name], capture_output=True, text=True)
        if run.returncode == 0:
            return
    # Which one: one by one, as it is rare.
    for where, expression in expressions:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "check", "rules": [{"record": "check:x", "expr": expression}]}]}, file)
            file.flush()
            run = subprocess.run([promtool, "check", "rules", file.name], capture_output=True, text=True)
            if run.returncode != 0:
                wrong(where, f"does not parse: {expression}: {run.stderr.strip().splitlines()[-1]}")


def main():
    promtool = sys.argv[1]
    metrics = code_metrics()
    all_rules = list(rules())
    recorded = {name for _, name, _, rule in all_rules if "record" in rule}
    expressions = [(f"{file}: {name}", expression) for file, name, expression, _ in all_rules]
    expressions += [(where, substitute(where, expression)) for where, expression in dashboards()]
    for where, expression in expressions:
        names_exist(where, expression, metrics, recorded)
    parse(promtool, expressions)

    runbooks = (MONITORING / "runbooks.md").read_text()
    sections = set(re.findall(r"^### (\w+)$", runbooks, re.M))
    tested = set()
    for file in sorted((MONITORING / "tests").glob("*.yaml")):
        for test in yaml.safe_load(file.read_text())["tests"]:
            tested |= {one["alertname"] for one in test.get("alert_rule_test", []) if one.get("exp_alerts")}
    alerts = {name: rule for _, name, _, rule in all_rules if "alert" in rule}
    for name, rule in alerts.items():
        if name not in sections:
            wrong(name, "has no section in runbooks.md")
        if name not in tested:
            wrong(name, "no unit test sees it fire")
        if rule["labels"].get("severity") not in {"critical", "warning", "info"}:
            wrong(name, "its severity must be critical, warning or info")
        if rule["annotations"].get("runbook") != f"ops/monitoring/runbooks.md#{name.lower()}":
            wrong(name, "its runbook annotation does not lead to its section")
    for name in sections - set(alerts):
        wrong("runbooks.md", f"the section {name} belongs to no alert")

    for problem in problems:
        print(problem)
    if not problems:
        print(f"{len(expressions)} expressions, {len(alerts)} alerts")
    sys.exit(1 if problems else 0)


main()
