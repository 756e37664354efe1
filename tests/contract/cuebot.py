"""The RPCs of OpenCue's Cuebot that submit a job, in place of Cuebot, which is a Java server with a database."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from xml.etree import ElementTree

import grpc
from opencue_proto import cue_pb2, cue_pb2_grpc, job_pb2, job_pb2_grpc


@contextmanager
def running_cuebot(launch: Callable[[ElementTree.Element], str]) -> Iterator[str]:
    """Give HOST:PORT of a server that calls `launch` with each job, and answers the name that `launch` returns."""

    class Cue(cue_pb2_grpc.CueInterfaceServicer):
        def GetSystemStats(self, request, context):
            return cue_pb2.CueGetSystemStatsResponse()

    class Jobs(job_pb2_grpc.JobInterfaceServicer):
        def LaunchSpec(self, request, context):
            try:
                return job_pb2.JobLaunchSpecResponse(names=[launch(ElementTree.fromstring(request.spec))])
            except ValueError as problem:
                context.abort(grpc.StatusCode.INTERNAL, str(problem))

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        cue_pb2_grpc.add_CueInterfaceServicer_to_server(Cue(), server)
        job_pb2_grpc.add_JobInterfaceServicer_to_server(Jobs(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()
