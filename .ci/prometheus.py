"""Asks a real Prometheus what every panel and every alert of grafana/ asks, while a cluster of three members works; then watches it find
registered instances by http_sd, and keep them when the cluster can say nothing of them.

    prometheus.py BIN          fails if any expression gives no data within a bound, or an instance is not found
    prometheus.py BIN plots    works for two minutes, then draws each dashboard into grafana/plots/

An alert compares with a bound and gives nothing while all is well, so its comparisons are asked with `bool`: that gives 0 or 1 for
each series that is compared, and nothing if there is nothing to compare.
"""

import contextlib
import json
import math
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
GRAFANA = ROOT / "grafana"
DASHBOARDS = ["cluster", "recipes", "registry"]
# For data to be there, seconds: elections, leases that run out, and windows that fill.
BOUND = 100
LONG = 2 * 60
INTERVAL = "2s"
# In no order, each once.
PORTS = iter(random.sample(range(12_000, 32_000), 20_000))
# The job whose targets the registry gives, and the service; and a job that leaves out instances that drain.
SCRAPED = "scraped"
UNDRAINED = "undrained"


def free_port():
    """One that this run has not given away, below those that the kernel gives to whoever asks for any."""
    for port in PORTS:
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            return port
    sys.exit("prometheus.py: no port from 12000 to 31999 is free on 127.0.0.1; end what holds them")


class Processes:
    """What this script started, and ends again, by its handle."""

    def __init__(self, home):
        self.home, self.running, self.stopping = home, [], threading.Event()

    def start(self, name, *command):
        with open(self.home / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home
            )
        self.running.append(process)
        return process

    def again_and_again(self, name, *command):
        """Starts it anew whenever it ends, until all is stopped."""

        def go_on():
            while not self.stopping.is_set():
                process = self.start(name, *command)
                while process.poll() is None and not self.stopping.wait(0.2):
                    pass
                self.stopping.wait(0.5)

        threading.Thread(target=go_on, daemon=True).start()

    def stop(self):
        self.stopping.set()
        time.sleep(0.3)
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def get(port, path, **query):
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def wait_for(what, bound, is_so):
    until = time.monotonic() + bound
    while time.monotonic() < until:
        try:
            if is_so():
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"prometheus.py: waited {bound} s in vain for {what}")


def start_cluster(processes, binaries):
    """Three members, in order; gives the ports of their clients and of their metrics."""
    client, peer, metrics = ([free_port() for _ in range(3)] for _ in range(3))
    founders = ",".join(f"m{at}=http://127.0.0.1:{port}" for at, port in enumerate(peer))
    for at in range(3):
        processes.start(
            f"m{at}", binaries / "tenured", "--name", f"m{at}", "--data-dir", processes.home / f"m{at}",
            "--listen-client-urls", f"http://127.0.0.1:{client[at]}",
            "--advertise-client-urls", f"http://127.0.0.1:{client[at]}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer[at]}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer[at]}",
            "--initial-cluster", founders, "--listen-metrics-urls", f"http://127.0.0.1:{metrics[at]}",
        )  # fmt: skip
    for port in client:
        wait_for("a member that is well", 60, lambda port=port: get(port, "/health")["health"] == "true")
    return client, metrics


def start_load(processes, binaries, client, long):
    """Something of every kind: each dashboard's panels are to show something."""
    endpoints = ",".join(f"127.0.0.1:{port}" for port in client)
    span = "300s" if long else "120s"

    def bench(name, what, *flags):
        always = ("--endpoints", endpoints, "--duration", span, "--warmup", "0s", "--quiet")
        processes.again_and_again(name, binaries / "tenure-bench", what, *always, *flags)

    bench("put", "put", "--clients", 8, "--rate", 150)
    bench("range", "range", "--clients", 4, "--rate", 50, "--keys", 100)
    bench("txn", "txn", "--clients", 4, "--rate", 30)
    bench("watch", "watch", "--watchers", 30, "--streams", 3, "--clients", 2, "--rate", 20)
    bench("lock", "lock", "--names", 2, "--clients", 8, "--rate", 40)
    bench("lease", "lease", "--clients", 2, "--rate", 20)
    bench("registry", "registry", "--instances", 200, "--ttl", 6)
    shortly = ("--endpoints", endpoints, "--clients", 2, "--quiet")
    processes.again_and_again("expiry", binaries / "tenure-bench", "expiry", *shortly, "--leases", 20, "--ttl", 2)
    tenure = binaries / "tenure"
    for at in range(3):
        one = ("--endpoints", f"127.0.0.1:{client[at]}")
        held = ("sleep", 8 + 3 * at)
        processes.again_and_again(f"elect{at}", tenure, "elect", "--id", f"c{at}", *one, "db/main", "--", *held)
        processes.again_and_again(f"queue{at}", tenure, "lock", *one, "jobs/nightly", "--", *held)
        registered = ("register", "--id", f"web-{at}", "--host", "127.0.0.1", "--port", 8080 + at, "--ttl", "3s")
        processes.again_and_again(f"register{at}", tenure, *registered, *one, "web", "--", *held)
    processes.again_and_again("ls", tenure, "ls", "services", "--endpoints", endpoints)
    processes.again_and_again("follow", tenure, "watch", "service", "web", "--endpoints", endpoints)


def start_prometheus(processes, client, metrics):
    """With the rules of grafana/ and a configuration like the one there, but for its targets, its pace and one more job."""
    shutil.copy(GRAFANA / "rules.yml", processes.home)
    text = (GRAFANA / "prometheus.yml").read_text()
    begun, _ = text.split("          - 127.0.0.1:2379\n")
    targets = "".join(f"          - 127.0.0.1:{port}\n" for port in metrics)
    config = processes.home / "prometheus.yml"
    discovery = "".join(
        f"""
  - job_name: {job}
    http_sd_configs:
      - url: {discovery_url(client)}
        refresh_interval: 1s
    relabel_configs:
      - source_labels: [__meta_tenure_id]
        target_label: instance
"""
        for job in (SCRAPED, UNDRAINED)
    )
    discovery += """
      - source_labels: [__meta_tenure_draining]
        regex: "true"
        action: drop
"""
    config.write_text((begun + targets + discovery).replace(": 15s", f": {INTERVAL}"))
    port = free_port()
    processes.start(
        "prometheus", "prometheus", f"--config.file={config}", f"--storage.tsdb.path={processes.home / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    wait_for("Prometheus", 60, lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5))
    return port


def panels(name):
    for panel in json.loads((GRAFANA / f"{name}.json").read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def filled(expression):
    """What Grafana puts in the place of its variables, with everything selected."""
    for variable, value in (("$job", ".*"), ("$instance", ".*"), ("$__rate_interval", "20s")):
        expression = expression.replace(variable, value)
    return expression


def compared(expression):
    """An alert's comparisons with `bool`, outside of label matchers."""
    parts = re.split(r"(\{[^}]*\})", expression)
    return "".join(
        part if part.startswith("{") else re.sub(r"(==|!=|>=|<=|>|<)", r"\1 bool", part) for part in parts
    )


def questions():
    for name in DASHBOARDS:
        for panel in panels(name):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']} ({target['refId']})", filled(target["expr"])
    name = None
    for line in (GRAFANA / "rules.yml").read_text().splitlines():
        kind, _, value = line.strip().removeprefix("- ").partition(": ")
        if kind in ("alert", "record"):
            name = f"{kind} {value}"
        elif kind == "expr":
            expression = value.strip().removeprefix("'").removesuffix("'").replace("''", "'")
            yield name, compared(expression) if name.startswith("alert") else expression


def has_data(port, expression):
    result = get(port, "/api/v1/query", query=expression)["data"]["result"]
    return any(not math.isnan(float(series["value"][1])) for series in result)


def check(port):
    """Every question must have an answer at least once within the bound: some things happen only now and then."""
    open_questions = dict(enumerate(questions()))
    count, until = len(open_questions), time.monotonic() + BOUND
    while open_questions and time.monotonic() < until:
        time.sleep(2)
        open_questions = {at: one for at, one in open_questions.items() if not has_data(port, one[1])}
    for name, expression in open_questions.values():
        print(f"no data: {name}: {expression}")
    targets = [target for target in active_targets(port) if target["scrapePool"] not in (SCRAPED, UNDRAINED)]
    ill = [f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["health"] != "up"]
    print("\n".join(ill))
    rules = [rule for group in get(port, "/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    wrong = [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule.get("lastError")]
    print("\n".join(wrong))
    if open_questions or ill or wrong or len(targets) != 3:
        sys.exit(1)
    print(f"{count} expressions of {len(DASHBOARDS)} dashboards and {len(rules)} rules gave data")


def active_targets(port):
    return get(port, "/api/v1/targets", state="active")["data"]["activeTargets"]


def discovery_url(client):
    return f"http://127.0.0.1:{client[0]}/v1/prometheus/sd?service={SCRAPED}"


def check_discovery(processes, binaries, client, metrics, port):
    """Instances come, drain and go. Their endpoints are the members' pages of metrics: something that can be scraped."""
    tenure, one = binaries / "tenure", ("--endpoints", f"127.0.0.1:{client[0]}")

    def register(name, at):
        words = ("--id", name, "--host", "127.0.0.1", "--port", metrics[at], "--ttl", "6s")
        return processes.start(f"instance-{name}", tenure, "register", *words, *one, SCRAPED, "--", "sleep", 600)

    def found(job=SCRAPED):
        """By their names: whether they are scraped, and whether they drain."""
        targets = [target for target in active_targets(port) if target["scrapePool"] == job]
        draining = "__meta_tenure_draining"
        return {
            target["labels"]["instance"]: (target["health"], target["discoveredLabels"][draining])
            for target in targets
        }

    def status():
        try:
            with urllib.request.urlopen(discovery_url(client), timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def failures():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("prometheus_sd_http_failures_total"))

    def kept(what, code):
        """Prometheus has asked in vain, and still has who was there before."""
        wait_for(f"{code} for {what}", 60, lambda: status() == code)
        before = failures()
        wait_for(f"Prometheus to be refused {what}", 60, lambda: failures() > before + 1)
        if set(found()) != {"a"}:
            sys.exit(f"prometheus.py: after {code} for {what} Prometheus has {found()} instead of a")

    scraped, drains = ("up", "false"), ("up", "true")
    leaving, staying = register("b", 1), register("a", 0)
    wait_for("two instances to be scraped", 60, lambda: found() == {"a": scraped, "b": scraped})
    subprocess.run([tenure, "drain", *one, SCRAPED, "a"], check=True, stdout=subprocess.DEVNULL)
    wait_for("the drain to be seen", 60, lambda: found() == {"a": drains, "b": scraped})
    wait_for("who drains to be left out where that is asked for", 60, lambda: set(found(UNDRAINED)) == {"b"})
    leaving.terminate()
    wait_for("who left to be gone", 60, lambda: set(found()) == {"a"})
    staying.terminate()
    kept("a service that nobody knows", 404)
    register("a", 0)
    wait_for("the service to be known again", 60, lambda: status() == 200)
    for member in processes.running[1:3]:
        member.terminate()
    kept("a cluster without a quorum", 503)
    print("http_sd: two instances found and scraped, one drained, one gone; kept when nobody knew them, and without a quorum")


def draw(port):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    (GRAFANA / "plots").mkdir(exist_ok=True)
    end = time.time()
    begin = end - LONG + 10
    for name in DASHBOARDS:
        shown = list(panels(name))
        rows = math.ceil(len(shown) / 3)
        figure, axes = pyplot.subplots(rows, 3, figsize=(18, 3.1 * rows), squeeze=False)
        for axis, panel in zip(axes.flat, shown):
            for target in panel["targets"]:
                answer = get(
                    port, "/api/v1/query_range", query=filled(target["expr"]), start=begin, end=end, step=2
                )
                for series in answer["data"]["result"]:
                    labels = series["metric"]
                    label = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), target["legendFormat"])
                    points = [((at - begin) / 60, float(value)) for at, value in series["values"]]
                    axis.plot(*zip(*points), label=label, linewidth=0.9)
            axis.set_title(f"{panel['title']} [{panel['fieldConfig']['defaults']['unit']}]", fontsize=9)
            axis.tick_params(labelsize=7)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            if 0 < len(axis.get_lines()) <= 9:
                axis.legend(fontsize=6, loc="upper left")
        for axis in list(axes.flat)[len(shown) :]:
            axis.remove()
        figure.suptitle(f"Tenure: {name}; three members on one machine under mixed load; minutes", fontsize=11)
        figure.tight_layout(rect=(0, 0, 1, 0.98))
        plot = GRAFANA / "plots" / f"{name}.png"
        figure.savefig(plot, dpi=65)
        # A few colours are enough, and a quarter of the bytes.
        Image.open(plot).convert("RGB").quantize(32).save(plot, optimize=True)


def main():
    binaries, long = pathlib.Path(sys.argv[1]).resolve(), "plots" in sys.argv[2:]
    with tempfile.TemporaryDirectory() as home:
        processes = Processes(pathlib.Path(home))
        try:
            client, metrics = start_cluster(processes, binaries)
            port = start_prometheus(processes, client, metrics)
            start_load(processes, binaries, client, long)
            began = time.monotonic()
            check(port)
            if long:
                time.sleep(max(0, LONG - (time.monotonic() - began)))
                draw(port)
            # Last, for it stops members.
            check_discovery(processes, binaries, client, metrics, port)
        finally:
            processes.stop()


main()
