"""Has schemathesis ask for things that are there: random numbers name nothing, and behind 404 nothing is tested."""

import schemathesis


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    value = (path_parameters or {}).get("id")
    # Two in three; the others stay what they were.
    if isinstance(value, int) and not isinstance(value, bool) and value % 3:
        path_parameters["id"] = value % 3
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict):
        for name in ("mailboxID", "profileID", "id"):
            value = body.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value % 3:
                body[name] = value % 3
    return body
