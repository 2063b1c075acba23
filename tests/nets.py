"""Nets that stand for all: of those that are rows of one table, the shallow ones."""

import re

from knorm.models import list_models

DEEP = re.compile(r"(34|50|101|152|161|169|201|40_4|vgg1[369]|small|base|large)$")
SHALLOW = [name for name in list_models() if not DEEP.search(name)]
