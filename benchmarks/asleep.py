"""Cut all of the service's connections at once, as a database does that falls asleep: python -m benchmarks.asleep."""

import time

from benchmarks.faults import clients_of, cluster, report
from benchmarks.servers import TASKAPI, folder, service

TIMES = 20
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskapi'"


def drill() -> str:
    """Cut them so many times, a second apart, under load; return what the clients saw, and what the database holds."""
    with folder() as path, cluster(path) as servers, service(TASKAPI, servers.url, path) as served:
        with clients_of(served) as clients:
            killed = 0
            for _ in range(TIMES):
                time.sleep(1)
                killed += len(servers.execute(CUT, database="postgres"))
            time.sleep(1)
        return report(servers, clients, killed, 0, 0, {})


if __name__ == "__main__":
    print(drill())
