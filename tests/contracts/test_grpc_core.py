"""A client of gRPC's own C core, which sends each message as a frame of its own."""

import queue
import threading

import grpc

SMALLEST = 20_000


def raw(channel, kind, method):
    """A stream of undecoded messages."""
    return getattr(channel, kind)(f"/offboard.v1.{method}")


def field(number, value):
    """A field of a message, of less than 128 bytes."""
    return bytes([number << 3 | 2, len(value)]) + value


def test_an_import_of_small_messages_leaves_its_connection_as_it_was(service):
    # Of nobody else: a watch takes its time, and an import its connection.
    metadata = [("authorization", f"Bearer {service.key(org='small')}")]
    with grpc.insecure_channel(service.grpc) as channel:
        seen = queue.Queue()
        # From now on.
        watch = raw(channel, "unary_stream", "EventService/WatchEvents")(b"", metadata=metadata)

        def read():
            try:
                for message in watch:
                    seen.put(message)
            except grpc.RpcError as error:
                seen.put(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()

        # An entity of type `T`, and that only refusals are returned; it is as small as a message that does something can be.
        message = field(1, field(2, b"T")) + b"\x10\x01"
        import_entities = raw(channel, "stream_stream", "EntityService/ImportEntities")
        answers = list(import_entities((message for _ in range(SMALLEST)), metadata=metadata))
        # received, created
        count = b"\xa0\x9c\x01"
        assert b"\x08" + count + b"\x10" + count in answers[-1], answers[-1][:200]

        create = raw(channel, "unary_unary", "EntityService/CreateEntity")
        create(field(1, field(1, b"the-last-one") + field(2, b"T")), metadata=metadata)
        while True:
            reported = seen.get(timeout=60)
            assert not isinstance(reported, grpc.RpcError), reported
            if b"the-last-one" in reported:
                break
        watch.cancel()
