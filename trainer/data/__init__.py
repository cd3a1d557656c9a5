"""Data of station 8: a file or a hub data set comes in, questions as token ids and the order to ask them in go out.

Every process reads the same rows and makes the same order, so nothing about data is ever sent between processes.
"""

from trainer.data.order import draw as draw
from trainer.data.order import epoch_of as epoch_of
from trainer.data.questions import Question as Question
from trainer.data.questions import QuestionSet as QuestionSet
from trainer.data.questions import load_questions as load_questions
from trainer.data.rows import DataError as DataError
