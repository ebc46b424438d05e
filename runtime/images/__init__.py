"""Images: what is here, under which names, and the ways in and out (registries, archives, root file systems).

Knows layers as blobs and snapshots; knows nothing of builds and containers, who ask for a snapshot by image. Imports no
HTTP: a `Transport` is handed in.
"""

from runtime.images.image import Deleted as Deleted
from runtime.images.image import Image as Image
from runtime.images.image import Layer as Layer
from runtime.images.image import Removed as Removed
from runtime.images.image import Untagged as Untagged
from runtime.images.images import Images as Images
