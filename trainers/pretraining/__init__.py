"""How the tiny backbones shipped in ``trainers/weights`` were made, from generic data that holds none of the tasks."""
