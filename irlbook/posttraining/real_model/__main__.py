from irlbook.errors import as_command
from irlbook.posttraining.real_model.study import main

raise SystemExit(as_command(main))
