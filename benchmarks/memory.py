"""Does a worker grow with the requests that it has served?"""

from tqdm import tqdm

from benchmarks.data import fill, token
from benchmarks.faults import until
from benchmarks.load import REQUESTS, run
from benchmarks.servers import TASKAPI, WORKERS, Service, folder, postgresql, service

TASKS = 10_000
FEW, MANY = 2_000, 200_000  # requests per worker


def measure() -> str:
    """Return what the workers hold after a few and after many requests, all endpoints in turn."""
    with folder() as path, postgresql(path) as create_database:
        url = create_database("memory")
        fill(url, TASKS, TASKS)
        with service(TASKAPI, url, path) as served:
            until(lambda: len(served.process.children()) == int(WORKERS))
            few = _after(served, FEW, 1)
            many = _after(served, MANY, 5)
    ratios = ", ".join(f"{after / before:.3f}" for before, after in zip(few, many, strict=True))
    kib = [", ".join(f"{size // 1024:,}" for size in sizes) for sizes in (few, many)]
    return f"RSS of each worker after {FEW:,} requests {kib[0]} KiB, after {MANY:,} {kib[1]} KiB: ratios {ratios}"


def _after(served: Service, requests: int, seconds: int) -> list[int]:
    workers = served.process.children()
    done = 0.0
    with tqdm(total=requests * len(workers), unit="request") as bar:
        while done < requests * len(workers):
            for endpoint in ("list of 20", "get one", "create", "update"):
                measured = run(served, REQUESTS[endpoint], seconds, TASKS, token())
                bar.update(int(measured.rate * seconds))
                done += measured.rate * seconds
    return [worker.memory_info().rss for worker in workers]
