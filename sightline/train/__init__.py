"""Losses, data and scripts that train the models. A face: nothing imports it."""
