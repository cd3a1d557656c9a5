"""The commands of `grpoctl`, one module each; `documents` reads their files, `report` prints what was found."""
