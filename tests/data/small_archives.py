"""Archives of 1,300 images, which tensorflow-datasets takes for those of 70,000.

What is tested does not know of them: they are registered where tensorflow-datasets has
the sums of the true archives and the numbers of their images.
"""

import gzip
import hashlib

from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.image_classification import mnist

# A page reads a thousand at a time, and should not come to an end with the first.
NUMBERS = {"t10k": 100, "train": 1_200}
# Of all images and labels, in the order that tensorflow-datasets gives them.
SHA256 = "4f58d7ae2027b149708d45510572905b6a57f4dccd774116a253d0e55389ffb3"


def archive(name, content):
    """Return ``content`` compressed, behind the header that the true archive has."""
    stamp = 1504176606 if name.startswith("train") else 1504176627
    header = bytes.fromhex("1f8b0808") + stamp.to_bytes(4, "little") + b"\0\3"
    header += name.removesuffix(".gz").encode() + b"\0"
    return header + gzip.compress(content)[10:]


def make():
    """Return {name: content}, the same in every process: noise, and labels in turns."""
    archives = {}
    for part, number in NUMBERS.items():
        images = bytes(16) + hashlib.shake_128(part.encode()).digest(number * 28 * 28)
        labels = bytes(8) + bytes(i % 10 for i in range(number))
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{part}-{kind}-ubyte.gz"
            archives[name] = archive(name, content)
    return archives


ARCHIVES = make()


def register(put=setattr):
    """Register the archives; ``put`` sets an object's attribute, for good or not."""
    infos = {
        mnist.FashionMNIST.URL + name: UrlInfo(
            len(content), hashlib.sha256(content).hexdigest(), name
        )
        for name, content in ARCHIVES.items()
    }
    put(mnist.FashionMNIST, "url_infos", infos)
    put(mnist, "_TRAIN_EXAMPLES", NUMBERS["train"])
    put(mnist, "_TEST_EXAMPLES", NUMBERS["t10k"])
