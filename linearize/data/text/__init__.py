"""Text as examples: documents to tokens, masks and labels."""

from linearize.data.text.documents import Documents as Documents
from linearize.data.text.documents import joined as joined
from linearize.data.text.examples import answers as answers
from linearize.data.text.examples import classification as classification
from linearize.data.text.examples import masked as masked
from linearize.data.text.packaged import TEXT_TASKS as TEXT_TASKS
from linearize.data.text.packaged import PackagedText as PackagedText
from linearize.data.text.packaged import load_text as load_text
from linearize.data.text.packaged import prefetch_texts as prefetch_texts
from linearize.data.text.packing import NOT_ASKED as NOT_ASKED
from linearize.data.text.packing import WINDOWS as WINDOWS
from linearize.data.text.packing import buckets as buckets
from linearize.data.text.packing import disjoint as disjoint
from linearize.data.text.packing import one_a_row as one_a_row
from linearize.data.text.packing import packed as packed
from linearize.data.text.packing import padded as padded
from linearize.data.text.packing import strided as strided
from linearize.data.text.prompts import KLM as KLM
from linearize.data.text.prompts import Prompt as Prompt
from linearize.data.text.tables import read_csv as read_csv
from linearize.data.text.tables import read_json_lines as read_json_lines
from linearize.data.text.tables import read_plain as read_plain
from linearize.data.text.task import TextTask as TextTask
from linearize.data.text.task import split_documents as split_documents
from linearize.data.text.tokens import Tokenizer as Tokenizer
from linearize.data.text.tokens import encoded as encoded
