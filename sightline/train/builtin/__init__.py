"""The recipe of the built-in models: data that the project draws, and the stages that train on it."""
