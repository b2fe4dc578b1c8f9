"""The names of kinds of objects."""

from bt_migrate.model.resource_table import OBJECT_RESOURCES

# kind, the word of the API -> name, the word of --resources
NAME_OF = {resource.kind: resource.name for resource in OBJECT_RESOURCES if not resource.part_of}
