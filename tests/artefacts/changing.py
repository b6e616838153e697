"""Changes to rendered manifests, as a careless edit makes them."""

from manifests import one

MISSING = object()



def put(value, kind, *path, name="stream-events"):
    """Sets what is at a path of a resource; MISSING takes it away."""
    def change(docs):
        doc = one(docs, kind, name)
        for key in path[:-1]:
            doc = doc[key] if isinstance(doc, list) else doc.setdefault(key, {})
        if value is MISSING:
            del doc[path[-1]]
        else:
            doc[path[-1]] = value
    return change


def setting(name, text):
    return put(text, "ConfigMap", "data", f"STREAM_EVENTS_{name}")


def of_pod(value, *path):
    return put(value, "Deployment", "spec", "template", "spec", *path)


def annotated(value, kind, name):
    return put(value, kind, "metadata", "annotations", name)


def without(kind):
    def change(docs):
        docs[:] = [doc for doc in docs if doc["kind"] != kind]
    return change


def add(item, kind, *path):
    def change(docs):
        doc = one(docs, kind)
        for key in path:
            doc = doc[key]
        doc.append(item)
    return change
